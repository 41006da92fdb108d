# The closed loop on a CPU; sourced by `dev`, which has `say`, `fail` and the rest.

# write_loop_scenario NAME GPUS PLAN [BANDWIDTH PROFILE]: one layout of the loop's model, priced by
# the profile, or before that is measured by the data sheet, for its plan alone. The rates of the
# core serve MFU only where there is a profile. The spread of GPUs is not that of cores.
write_loop_scenario() {
  cat >"results/loop/$1.json" <<SCENARIO
{
  "schema": "scenario/1",
  "title": "A small model on $2 of this machine's cores: $1",
  "model": {"name": "loop", "layers": 4, "hidden": 256, "heads": 4, "ffn": 1024, "vocab": 256,
            "max_seq_len": 256},
  "cluster": {"nodes": 1, "node": {
    "id": "here", "name": "this machine", "gpus": $2, "nvswitch": false, "nics": 0,
    "gpu": {"id": "cpu", "name": "a core", "memory": "4 GB", "memory_bandwidth": "10 GB/s",
            "fp32_rate": "50 GFLOP/s", "pcie_bandwidth": "${4:-1e10} B/s"}}},
  ${5:+"\"profiles\": [\"$5\"],"}
  "workload": {"kind": "training", "global_batch": 8, "seq_len": 256},
  "spread": {"deviation": 0},
  "plan": {"name": "$1", "framework": "rehearse", $3, "precision": "fp32"}
}
SCENARIO
}

# measured_bandwidth PROFILE: measures what messages and collectives take between two ranks into the
# profile, and prints the nominal rate, in bytes/s, of a link whose payload is what a message
# reaches: the simulation lets 85 % of PCIe's nominal rate be payload.
measured_bandwidth() {
  command -v mpirun >/dev/null || fail "no mpirun was found: two ranks need MPI"
  mpirun -n 2 --bind-to none build/release/rehearse-device links --json \
    --into "$1" >results/loop/links.json ||
    fail "the link between two ranks could not be measured"
  sed -n 's/.*"bandwidth_bytes_per_s": \([0-9.e+]*\).*/\1/p' results/loop/links.json |
    awk '{ printf "%.0f\n", $1 / 0.85 }'
}

# simulate_loop NAME: its scenario's plan and timeline.
simulate_loop() {
  build/release/rehearse run "results/loop/$1.json" --quiet --force -o "results/loop/$1.txt" \
    --plan-out "results/loop/$1.plan.json" --timeline "results/loop/$1.timeline.json"
}

# train_loop NAME: trains its plan, and lays it beside the prediction.
train_loop() {
  rm -rf "results/loop/$1.measured"
  build/release/rehearse-device train "results/loop/$1.plan.json" --threads 1 \
    --steps "$loop_steps" --data results/loop/corpus.tokens --json \
    --timeline "results/loop/$1.measured" </dev/null >"results/loop/$1.training.json" 2>/dev/null ||
    fail "$1 did not train: rehearse-device train results/loop/$1.plan.json says why"
  build/release/rehearse compare "results/loop/$1.timeline.json" "results/loop/$1.measured" \
    --force --json "results/loop/$1.comparison.json" --trace "results/loop/$1.trace.json" \
    >"results/loop/$1.compare.txt" 2>/dev/null
}

# Profile, predict, train and compare one layout.
loop_round() {
  local name=$1 gpus=$2 plan=$3 bandwidth=1e10
  # The operators of each layout are measured at work, as many ranks at once as will train.
  write_loop_scenario "$name" "$gpus" "$plan"
  simulate_loop "$name"
  build/release/rehearse-device profile --device cpu --threads 1 --budget 5s \
    --plan "results/loop/$name.plan.json" -o "results/loop/$name.cpu.json" --force </dev/null >&2
  ((gpus == 1)) || bandwidth=$(measured_bandwidth "results/loop/$name.cpu.json" </dev/null)
  write_loop_scenario "$name" "$gpus" "$plan" "$bandwidth" "$name.cpu.json"
  simulate_loop "$name"
  train_loop "$name"
  loop_row "$name" "results/loop/$name.training.json" "results/loop/$name.comparison.json" |
    tee -a results/loop/rounds.tsv |
    awk -F'\t' '{ printf "%s: measured %.1f ms, predicted %.1f ms (%+.1f %%)\n", $1, 1e3 * $2,
      1e3 * $3, 100 * ($3 - $2) / $2 }' >&2
}

# Four ranks on however few cores say nothing about time, but train as one rank does.
loop_hybrid() {
  local name=hybrid last one
  write_loop_scenario "$name" 4 '"dp": 2, "tp": 2'
  simulate_loop "$name"
  train_loop "$name"
  last=$(sed -n 's/^ *"loss": \([0-9.]*\),/\1/p' "results/loop/$name.training.json" | tail -1)
  one=$(sed -n 's/^ *"loss": \([0-9.]*\),/\1/p' results/loop/one.training.json | tail -1)
  awk -v hybrid="$last" -v one="$one" 'BEGIN {
    off = (hybrid - one) / one
    printf "hybrid, dp 2 x tp 2 on 4 ranks, for correctness alone (more ranks than cores: no " \
      "time is predicted): loss %.5f, of one rank %.5f\n", hybrid, one
    exit !(off < 1e-4 && off > -1e-4)
  }' || fail "the hybrid layout does not train as one rank does"
}

run_loop() {
  local rounds=${REHEARSE_LOOP_ROUNDS:-3} round name gpus plan
  loop_steps=8
  [[ "$rounds" =~ ^[1-9][0-9]*$ ]] || fail "REHEARSE_LOOP_ROUNDS is a number of rounds" 2
  install_packages "${program_packages[@]}" "${test_packages[@]}"
  build release rehearse rehearse-device
  allow_mpi_here
  rm -rf results/loop
  mkdir -p results/loop
  build/release/rehearse data tokenize scenarios/data/lighthouse-log.txt \
    -o results/loop/corpus.tokens --force
  # A machine's speed drifts over minutes: each round goes through all of a layout at once, and of
  # the rounds the median error counts.
  for ((round = 1; round <= rounds; ++round)); do
    say "dev: round $round of $rounds"
    while read -r name gpus plan; do
      loop_round "$name" "$gpus" "$plan"
    done <<'LAYOUTS'
one 1 "dp": 1
data 2 "dp": 2
tensor 2 "tp": 2
pipeline 2 "pp": 2
LAYOUTS
  done
  loop_hybrid
  say "dev: part by part in results/loop/*.compare.txt; *.trace.json are for ui.perfetto.dev"
  echo "medians of $rounds rounds:"
  awk -v time_bar=10 -v memory_bar=3 -f tests/loops/table.awk results/loop/rounds.tsv
}
