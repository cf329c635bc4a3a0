#!/usr/bin/env bash
# tools/tokens/setup.sh [DIR]: a Python environment with what eyas_tokens.py needs (default build/tokens-venv); quick
# when it is there.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../python_packages.sh" "$here/requirements.txt" "${1:-$here/../../build/tokens-venv}"
