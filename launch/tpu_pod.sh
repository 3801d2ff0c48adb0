#!/usr/bin/env bash
# One run on all workers of a Cloud TPU pod slice:
#   TPU=NAME ZONE=us-west4-a [PROJECT=…] bash launch/tpu_pod.sh launch.train --config=… --workdir=/a/folder/that/all/workers/share
# Copies this repository there, installs requirements.txt and jax[tpu] once (again when the list changes), runs on every worker.
#   PYTHON=python3.12    the interpreter there (3.11 or later);  JAX_VERSION=…    of jax[tpu], else requirements.txt chooses
# Worker 0 is heard, and the others' errors. JAX ends those that lose one (distributed.HEARTBEAT_SECONDS); the same command goes on.
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 1
}

[[ $# -ge 1 ]] || fail "usage: TPU=NAME ZONE=ZONE bash launch/tpu_pod.sh MODULE [--flag=value …]"
[[ -n ${TPU:-} && -n ${ZONE:-} ]] || fail "set TPU and ZONE to the slice's name and zone"
command -v gcloud >/dev/null || fail "there is no 'gcloud': install the Google Cloud CLI"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
where=("--zone=$ZONE")
if [[ -n ${PROJECT:-} ]]; then
  where+=("--project=$PROJECT")
fi

everywhere() { gcloud compute tpus tpu-vm ssh "$TPU" "${where[@]}" --worker=all --command="$1"; }

archive=$(mktemp -d)/specexit.tar.gz
trap 'rm -rf "$(dirname "$archive")"' EXIT
git -C "$root" archive --format=tar.gz --output="$archive" HEAD || fail "$root is no git repository: only what is committed is copied"
gcloud compute tpus tpu-vm scp "$archive" "$TPU:specexit.tar.gz" "${where[@]}" --worker=all

# The folder is made anew, so that no file of an older commit stays; the environment beside it is kept.
# shellcheck disable=SC2016  # expanded over there
install='set -e
rm -rf specexit && mkdir specexit && tar -xzf specexit.tar.gz -C specexit
want=$(sha256sum specexit/requirements.txt)
if [ "$(cat specexit-env/installed 2>/dev/null)" != "$want" ]; then
  "$python" -m venv --clear specexit-env
  specexit-env/bin/python -m pip install -q -r specexit/requirements.txt "$jax"
  printf "%s" "$want" >specexit-env/installed
fi'
printf -v choices 'python=%q jax=%q\n' "${PYTHON:-python3}" "jax[tpu]${JAX_VERSION:+==$JAX_VERSION}"
everywhere "$choices$install"

# Quoted once for the shell at the other end.
printf -v arguments ' %q' "$@"
everywhere "cd specexit && SPECEXIT_CLUSTER=gcetpu exec ../specexit-env/bin/python -m$arguments"
