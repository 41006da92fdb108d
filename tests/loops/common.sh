# What both closed loops share; sourced by `dev`.

# json_number FILE KEY: the first number of this key.
json_number() {
  sed -nE "s/^ *\"$2\": ([-0-9.e+]+),?\$/\1/p" "$1" | head -1
}

# loop_row NAME TRAINING COMPARISON: a line for table.awk, from a training/1 and a comparison/1.
loop_row() {
  local mfu
  mfu=$(json_number "$2" mfu)
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$(json_number "$2" step_time_s)" \
    "$(json_number "$2" predicted_step_time_s)" \
    "$(json_number "$3" measured_memory_bytes)" "$(json_number "$3" predicted_memory_bytes)" \
    "$(json_number "$2" tokens_per_s)" \
    "$(if [[ -n "$mfu" ]]; then awk -v mfu="$mfu" 'BEGIN { print 100 * mfu }'; else echo -; fi)"
}
