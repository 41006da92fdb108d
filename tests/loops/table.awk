# Prints the table of a closed loop and its verdict; exits 1 where an error is outside its bar.
# Reads a line a run: name, measured s, predicted s, measured bytes, predicted bytes, tokens/s,
# MFU in percent ("-": not known), tab-separated. Of several runs of a name the medians count.
# Variables: time_bar and memory_bar in percent.
BEGIN { FS = "\t" }
{
  if (!($1 in runs)) order[++names] = $1
  n = ++runs[$1]
  measured[$1, n] = $2
  predicted[$1, n] = $3
  time_error[$1, n] = 100 * ($3 - $2) / $2
  taken[$1, n] = $4
  memory_error[$1, n] = $4 > 0 ? 100 * ($5 - $4) / $4 : "-"
  tokens[$1, n] = $6
  mfu[$1, n] = $7
}
function median(values, name,   i, j, n, key, sorted) {
  n = runs[name]
  for (i = 1; i <= n; ++i) {
    if (values[name, i] == "-") return "-"
    key = values[name, i] + 0
    for (j = i; j > 1 && sorted[j - 1] > key; --j) sorted[j] = sorted[j - 1]
    sorted[j] = key
  }
  return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}
function outside(value, bar) { return value == "-" || value > bar || value < -bar }
function show(format, value) { return value == "-" ? "-" : sprintf(format, value) }
END {
  print "| run | measured | predicted | error | peak memory | error | tokens/s | MFU |"
  print "|---|---:|---:|---:|---:|---:|---:|---:|"
  for (i = 1; i <= names; ++i) {
    name = order[i]
    slow = median(time_error, name)
    full = median(memory_error, name)
    printf "| %s | %.1f ms | %.1f ms | %s | %.1f MB | %s | %.4g | %s |\n", name,
      1e3 * median(measured, name), 1e3 * median(predicted, name), show("%+.1f %%", slow),
      median(taken, name) / 1e6, show("%+.2f %%", full), median(tokens, name),
      show("%.1f %%", median(mfu, name))
    if (outside(slow, time_bar)) bad = bad " " name " (time)"
    if (outside(full, memory_bar)) bad = bad " " name " (memory)"
  }
  if (names == 0) bad = " no run"
  if (bad == "") {
    printf "verdict: within %g %% of the step times and %g %% of the memory\n", time_bar, memory_bar
  } else {
    printf "verdict: outside %g %% of the step times or %g %% of the memory:%s\n", time_bar,
      memory_bar, bad
    exit 1
  }
}
