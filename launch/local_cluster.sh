#!/usr/bin/env bash
# One run on N processes of this machine:  bash launch/local_cluster.sh N launch.train --config=… --workdir=…
#   DEVICES=4     devices of each process, where they are virtual ones of the CPU (JAX_PLATFORMS=cpu)
#   PYTHON=…      the interpreter
# Process 0 is heard; another one only if it ends the run. The first to fail ends all, and its exit code is this script's.
set -uo pipefail

fail() {
  echo "error: $*" >&2
  exit 1
}

[[ $# -ge 2 && $1 =~ ^[1-9][0-9]*$ ]] || fail "usage: bash launch/local_cluster.sh N MODULE [--flag=value …], N being a number of processes"
count=$1
shift
python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "there is no '$python': name an interpreter with PYTHON=…"
PYTHONPATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
port=$("$python" -c 'import socket
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    print(free.getsockname()[1])') || fail "found no free port"
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count
if [[ -n ${DEVICES:-} ]]; then
  export JAX_NUM_CPU_DEVICES=$DEVICES
fi
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

pids=()
# SIGINT is passed on as SIGTERM: the shell lets what it starts in the background ignore SIGINT.
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < count; i++)); do
  if ((i == 0)); then
    JAX_PROCESS_ID=$i "$python" -P -m "$@" &
  else
    JAX_PROCESS_ID=$i "$python" -P -m "$@" >"$logs/$i" 2>&1 &
  fi
  pids+=($!)
done

# `wait -n` also returns when a signal was passed on: then nobody has ended, and it is called again.
code=0 first=
left=("${pids[@]}")
while ((${#left[@]})); do
  ended=
  wait -n -p ended "${left[@]}"
  code=$?
  [[ -n ${ended:-} ]] || continue
  for i in "${!left[@]}"; do
    if [[ ${left[i]} == "$ended" ]]; then
      unset "left[$i]"
    fi
  done
  if ((code)); then
    first=$ended
    break
  fi
done
((code)) || exit 0

# Stopped by a signal (143, 130), all have saved and end by themselves. After a failure the others wait for the one that is gone.
if ((code == 143 || code == 130)); then
  for ((waited = 0; waited < 300; waited++)); do
    kill -0 "${left[@]}" 2>/dev/null || break
    sleep 0.1
  done
fi
kill -KILL "${left[@]}" 2>/dev/null
wait 2>/dev/null
for i in "${!pids[@]}"; do
  if [[ ${pids[i]} == "$first" ]]; then
    if ((i > 0 && code != 143 && code != 130)); then
      tail -n 60 "$logs/$i" | sed "s/^\(process $i: \)\{0,1\}/process $i: /" >&2
    fi
    ((code < 128 || code == 143 || code == 130)) || echo "error: process $i was ended by signal $((code - 128))" >&2
  fi
done
exit "$code"
