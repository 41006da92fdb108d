#!/bin/sh
# Stands in for `rehearse run SCENARIO --quiet --json - --shard I/N`. The scenario is a text file
# with one variant's name a line. Words in its name choose a fault:
#   bad       every share prints a problem and exits 2
#   crash     the second share is ended by a signal
#   nofit     no share finds a plan that fits: exit 3
#   garbage   the second share prints something else
#   sleep     writes its process id beside the scenario and sleeps
[ "$1" = run ] || exit 64
scenario=$2
shift 2
while [ $# -gt 0 ]; do
  case $1 in
    --shard) shard=$2; shift 2 ;;
    --quiet) shift ;;
    --json) [ "$2" = - ] || exit 64; shift 2 ;;
    *) exit 64 ;;
  esac
done
index=${shard%/*}
count=${shard#*/}
case $scenario in
  *bad*) echo "$scenario:1:1: error: no such model" >&2; exit 2 ;;
  *crash*) [ "$index" = 2 ] && kill -SEGV $$ ;;
  *garbage*) [ "$index" = 2 ] && { echo "not json"; exit 0; } ;;
  *sleep*) echo $$ > "$scenario.$index.pid"; exec sleep 60 ;;
esac
total=$(wc -l < "$scenario")
first=$((total * (index - 1) / count + 1))
last=$((total * index / count))
printf '{\n  "schema": "result/1",\n  "variants": ['
separator=''
line=$first
while [ "$line" -le "$last" ]; do
  printf '%s\n    {\n      "name": "%s",\n      "step_time_s": 0.%s\n    }' "$separator" \
    "$(sed -n "${line}p" "$scenario")" "$line"
  separator=','
  line=$((line + 1))
done
[ "$first" -le "$last" ] && printf '\n  '
printf ']\n}\n'
case $scenario in *nofit*) exit 3 ;; esac
exit 0
