#!/usr/bin/env bash
# tools/python_packages.sh REQUIREMENTS DIR: a Python environment in DIR with the packages of a requirements file, from
# PyPI; quiet and quick when it is there. They are pinned and need no others, so none are pulled in.
set -euo pipefail
cmp -s "$1" "$2/requirements.txt" && exit 0
echo "installing the packages of $1 into $2"
python3 -m venv "$2"
"$2/bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$1"
cp "$1" "$2/requirements.txt"
