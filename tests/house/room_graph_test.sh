#!/usr/bin/env bash
# Runs the check on the tree, and on a copy with an upward include, which it must find.
set -euo pipefail
python3 tests/house/room_graph_test.py .
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/include"
cp -rL include/eyas "$copy/include/"
chmod -R u+w "$copy"
echo '#include "eyas/trainer/trainer.hpp"' >>"$copy/include/eyas/core/error.hpp"
if python3 tests/house/room_graph_test.py "$copy" >/dev/null; then
  echo "an upward include was not found"
  exit 1
fi
