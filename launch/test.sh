#!/usr/bin/env bash
# Lint and tests, three files at a time. Arguments go to pytest, which then runs one:  bash launch/test.sh [-k NAME] …
# The slow proofs, which take hours:  bash launch/test.sh -m slow
# What was compiled is kept in .venv-test for the next run. With CI=true the environment is a new one, thrown away afterwards.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/launch/environment.sh"
cd "$root"
folder=$root/.venv-test
if [[ ${CI:-} == true ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
prepare "$folder" "$root/requirements-dev.txt"
export JAX_PLATFORMS=cpu
unset PYTHONDONTWRITEBYTECODE # or each process compiles all modules, and pytest every assertion
"$python" -m ruff check .
"$python" -m ruff format --check .
if [[ $# == 0 ]]; then
  # All of them, three files at a time: on two cores, some always wait for processes that they have started. A worker that
  # crashes ends the run with its reason; replaced, xdist would wait for ever.
  set -- -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
fi
"$python" -m pytest "$@" --compiled="$folder/compiled" --durations=20
