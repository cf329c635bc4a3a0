#!/usr/bin/env bash
# tools/tokens/setup.sh [DIR]: a Python environment with what eyas_tokens.py needs (default build/tokens-venv), from
# PyPI; quiet and quick when it is there. The packages are pinned and need no others, so none are pulled in.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="${1:-$here/../../build/tokens-venv}"
cmp -s "$here/requirements.txt" "$venv/requirements.txt" && exit 0
echo "installing the packages of tools/tokens/requirements.txt into $venv"
python3 -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$here/requirements.txt"
cp "$here/requirements.txt" "$venv/requirements.txt"
