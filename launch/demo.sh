#!/usr/bin/env bash
# Evaluates the bundled model on about 20 problems a task and prints the table. Arguments go to launch.evaluate:
#   bash launch/demo.sh [--workdir=DIR] [--limit=N] …        PYTHON=python3.12 names another interpreter
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/launch/environment.sh"
prepare "$root/.venv" "$root/requirements.txt"
# -P keeps the caller's folder, where relative paths in the arguments belong, from being searched for modules.
export PYTHONPATH=$root JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
exec "$python" -P -m launch.evaluate --config="$root/configs/embedded.py:demo" --workdir="$root/runs/demo" "$@"
