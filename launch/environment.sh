# shellcheck shell=bash disable=SC2154  # root is the sourcing script's
# Sourced by demo.sh and test.sh: a virtual environment that is made once and brought up to date when its list changes.

fail() {
  echo "error: $*" >&2
  exit 1
}

# prepare FOLDER LIST: leaves `python` set to an interpreter that has everything of the requirements file LIST.
prepare() {
  local folder=$1 list=$2 base=${PYTHON:-python3} want have stamp
  stamp=$folder/installed
  command -v "$base" >/dev/null || fail "there is no '$base': install Python 3.11 or 3.12, or name one with PYTHON=…"
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "'$base' is not a Python of version 3.11 or later: install one, or name one with PYTHON=…"
  # requirements-dev.txt includes requirements.txt, so both are in every stamp.
  want=$("$base" -c 'import hashlib, sys
print(sys.version, hashlib.sha256(b"".join(open(name, "rb").read() for name in sys.argv[1:])).hexdigest())' \
    "$list" "$root/requirements.txt") || fail "cannot read $list"
  have=$(cat "$stamp" 2>/dev/null || true)
  python=$folder/bin/python
  [[ $have == "$want" && -x $python ]] && return
  echo "Installing $(basename "$list") into $folder (a few minutes, once) …" >&2
  rm -f "$stamp"
  "$base" -m venv --clear "$folder" || fail "'$base' cannot make a virtual environment (on Debian: apt install python3-venv)"
  "$python" -m pip install -qq --disable-pip-version-check --no-compile --requirement "$list" ||
    fail "pip could not install $list (its message is above)"
  # pip would compile one file after the other. Left to the first import, some modules warn, which ends a test.
  "$python" -W ignore -m compileall -q -j 0 -x '/tests?/' "$folder/lib" >/dev/null 2>&1 || true
  printf '%s\n' "$want" >"$stamp"
}
