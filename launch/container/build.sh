#!/usr/bin/env bash
# Builds the server's container with podman or docker: bash launch/container/build.sh [cpu|cuda] [NAME]
# Then: podman run -p 8000:8000 specexit-serve-cpu [--slots=8 …]; for cuda with --device=nvidia.com/gpu=all (docker: --gpus=all).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
variant="${1:-cpu}"
case "$variant" in
  cpu) extras=serve ;;
  cuda) extras=serve,cuda13 ;;
  *) echo "error: the variants are cpu and cuda, not $variant." >&2; exit 1 ;;
esac
tool="$(command -v podman || command -v docker)" || { echo "error: neither podman nor docker is installed." >&2; exit 1; }
exec "$tool" build --file launch/container/Containerfile --build-arg "EXTRAS=$extras" --tag "${2:-specexit-serve-$variant}" .
