#!/usr/bin/env bash
# tools/cuda/setup.sh [DIR]: the headers of cudnn-frontend, from PyPI, in a Python environment (default
# build/cuda-venv), where tools/system/system_library.bzl finds them; quick when they are there.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../python_packages.sh" "$here/requirements.txt" "${1:-$here/../../build/cuda-venv}"
