# The closed loop on one GPU, and what a bare machine needs for it; sourced by `dev`.

readonly loop_out=results/gpu-loop
# Name, sequences of a step, plan, model; of none was a profile fitted.
readonly loop_gpt2='"layers": 12, "hidden": 768, "heads": 12, "ffn": 3072'
readonly loop_runs='gpt2-124m|32|"micro_batch": 32|'$loop_gpt2'
gpt2-124m-in-four|32|"micro_batch": 8|'$loop_gpt2'
350m-repeated|16|"micro_batch": 16, "recompute": "full"|"layers": 24, "hidden": 1024, "heads": 16
gpt2-1.5b|8|"micro_batch": 4|"layers": 48, "hidden": 1600, "heads": 25, "ffn": 6400'
# What tries the loop itself where there is no GPU (REHEARSE_LOOP_DEVICE=cpu).
readonly loop_trial_runs='tiny|2|"micro_batch": 1|"layers": 2, "hidden": 64, "heads": 2, "ffn": 256
tiny-repeated|2|"micro_batch": 2, "recompute": "full"|"layers": 2, "hidden": 64, "heads": 2'

# pack_program PREFIX: the simulator, and every library that it loads with its loader, so that it
# runs where none of them is, or an older C library.
pack_program() {
  local lib=$1/rehearse/lib library loader
  build release rehearse
  rm -rf "$1/rehearse"
  mkdir -p "$lib"
  cp build/release/rehearse "$1/rehearse/rehearse.bin"
  while read -r library; do
    cp -L "$library" "$lib/"
  done < <(ldd build/release/rehearse | sed -nE 's/^.*[[:space:]](\/[^ ]+) \(0x.*$/\1/p')
  loader=$(cd "$lib" && ls ld-linux* | head -1)
  strip --strip-unneeded "$1/rehearse/rehearse.bin" "$lib"/*.so* 2>/dev/null || true
  cat >"$1/rehearse/rehearse" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
exec "\$here/lib/$loader" --library-path "\$here/lib" "\$here/rehearse.bin" "\$@"
WRAPPER
  chmod +x "$1/rehearse/rehearse"
  "$1/rehearse/rehearse" --version >/dev/null || fail "the packed program does not run"
}

# The simulator: built here, or packed on another machine.
loop_program() {
  local program
  for program in build/release/rehearse build/gpu-prefix/rehearse/rehearse; do
    if [[ -x "$program" ]] && "$program" --version >/dev/null 2>&1; then
      echo "$program"
      return
    fi
  done
  fail "the loop simulates as well: ./dev build here, or ./dev gpu pack where that works"
}

# The device as scenarios have it.
loop_gpu() {
  if [[ "$loop_device" == cpu ]]; then
    echo '{"id": "cpu", "name": "a core", "memory": "4 GB", "memory_bandwidth": "10 GB/s",
      "fp32_rate": "50 GFLOP/s", "bf16_rate": "50 GFLOP/s", "pcie_bandwidth": "10 GB/s"}'
  else
    echo "\"$(gpu_id)\""
  fi
}

# write_gpu_scenario NAME GPU BATCH PLAN MODEL
write_gpu_scenario() {
  cat >"$loop_out/$1.json" <<SCENARIO
{
  "schema": "scenario/1",
  "title": "One GPU: $1",
  "model": {"name": "$1", $5, "vocab": 50304, "max_seq_len": 1024},
  "cluster": {"nodes": 1, "node": {"id": "here", "name": "this machine", "gpus": 1, "nics": 0,
                                   "gpu": $2}},
  "profiles": ["gpu.json"],
  "workload": {"kind": "training", "global_batch": $3, "seq_len": 1024},
  "plan": {"name": "$1", "framework": "rehearse", $4, "precision": "bf16"}
}
SCENARIO
}

# A token file (docs/data.md) of half a million ids below GPT-2's padded vocabulary, as words of a
# language are spread: the r-th most frequent with a share of 1/r.
write_loop_tokens() {
  local line
  awk -v count=524288 -v vocab=50304 '
    function number(value, bytes,   i) {
      for (i = 0; i < bytes; ++i) {
        printf "\\0%03o", value % 256
        value = int(value / 256)
      }
    }
    BEGIN {
      srand(1)
      printf "RHTOKENS"
      number(1, 4); number(2, 4); number(vocab, 8); number(count, 8)
      for (i = 0; i < count; ++i) {
        if (i % 1024 == 0) printf "\n"
        # Frequent words lie anywhere in the vocabulary: 12289 shares no factor with it.
        number(int(exp(rand() * log(vocab))) * 12289 % vocab, 2)
      }
      printf "\n"
    }' | while read -r line; do printf '%b' "$line"; done >"$1"
}

# gpu_run NAME BATCH PLAN MODEL: predicts, trains, compares, and leaves a row for the table.
gpu_run() {
  local name=$1 at=$loop_out/$1
  write_gpu_scenario "$name" "$(loop_gpu)" "$2" "$3" "$4"
  "$loop_rehearse" run "$at.json" --quiet --force -o "$at.txt" \
    --plan-out "$at.plan.json" --timeline "$at.timeline.json"
  "$loop_trainer" train "$at.plan.json" --device "$loop_device" --steps "$loop_steps" --json \
    --data "$loop_out/corpus.tokens" </dev/null >"$at.training.json" 2>"$at.log" ||
    fail "$name did not train: $(tail -1 "$at.log")"
  # Recording waits for each operator: the timeline comes from a run of its own.
  rm -rf "$at.measured"
  "$loop_trainer" train "$at.plan.json" --device "$loop_device" \
    --steps "$((loop_steps < 5 ? loop_steps : 5))" --data "$loop_out/corpus.tokens" \
    --timeline "$at.measured" </dev/null >/dev/null 2>"$at.log" ||
    fail "$name was not recorded: $(tail -1 "$at.log")"
  "$loop_rehearse" compare "$at.timeline.json" "$at.measured" --force --trace "$at.trace.json" \
    --json "$at.comparison.json" >"$at.compare.txt"
  loop_row "$name" "$at.training.json" "$at.comparison.json" >"$at.row"
  say "dev: $name: measured $(json_number "$at.training.json" step_time_s) s," \
    "predicted $(json_number "$at.training.json" predicted_step_time_s) s"
}

# The table of all that has run, beside what llm.c publishes: karpathy/llm.c at f1e2ace, scripts/
# and discussions 481 and 677; MFU by its own formula, 6 N + 6 L C T FLOPs a token, of bf16 peaks.
gpu_table() {
  local rows=() row
  for row in "$loop_out"/*.row; do [[ ! -f "$row" ]] || rows+=("$row"); done
  ((${#rows[@]})) || fail "nothing has run yet"
  cat <<'PUBLISHED'
llm.c publishes, on other GPUs than this may be (scripts/ at f1e2ace; discussions 481 and 677):
  GPT-2 124M, 8 x A100 80 GB: 1.75 M tokens/s, 218 k a GPU, about 56 % MFU
  GPT-2 1558M, 8 x H100 SXM:  374 k tokens/s, 47 k a GPU, about 46 % MFU
PUBLISHED
  awk -v time_bar=5 -v memory_bar=3 -f tests/loops/table.awk "${rows[@]}"
}

loop_profile() {
  local budget=()
  [[ "$loop_device" != cpu ]] || budget=(--budget 20s --threads 1)
  "$loop_trainer" profile --device "$loop_device" "${budget[@]}" -o "$loop_out/gpu.json" --force \
    </dev/null >&2
}

# gpu_loop [WHAT]: all of it; or "profile", the name of a run, or "table", where one command has
# little time.
gpu_loop() {
  local what=${1:-all} runs=$loop_runs known=' all profile table' name batch plan model
  loop_device=${REHEARSE_LOOP_DEVICE:-cuda}
  loop_steps=20
  if [[ "$loop_device" == cpu ]]; then
    runs=$loop_trial_runs
    loop_steps=3
    loop_trainer=build/release/rehearse-device
  else
    gpu_built
    loop_trainer=build/gpu/rehearse-device
  fi
  while IFS='|' read -r name batch plan model; do known+=" $name"; done <<<"$runs"
  [[ "$known " == *" $what "* ]] || fail "gpu loop takes nothing or one of:$known" 2
  loop_rehearse=$(loop_program)
  mkdir -p "$loop_out"
  [[ "$what" != all ]] || rm -f "$loop_out"/*.row
  [[ "$what" == table || -s "$loop_out/corpus.tokens" ]] ||
    write_loop_tokens "$loop_out/corpus.tokens"
  [[ "$what" != all && "$what" != profile ]] || loop_profile
  [[ "$what" != profile ]] || return 0
  while IFS='|' read -r name batch plan model; do
    [[ "$what" == all || "$what" == "$name" ]] || continue
    [[ -s "$loop_out/gpu.json" ]] || fail "there is no profile yet: ./dev gpu loop profile"
    gpu_run "$name" "$batch" "$plan" "$model"
  done <<<"$runs"
  say "dev: part by part in $loop_out/*.compare.txt"
  gpu_table
}
