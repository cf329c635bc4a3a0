#!/usr/bin/env bash
# compiled_test.sh LOG PROGRAM: the kernels that nvcc made for all architectures (LOG, its ptxas output), and a program
# that trains on a GPU: where there is none it says so, and what to do.
set -euo pipefail
log="$1" program="$2"
python3 tests/cuda/kernel_resources.py check "$log" docs/cuda.md
python3 tests/cuda/kernel_resources.py table "$log"

# What the check must find.
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
refuses() {
  local said
  sed "0,/$1/s//$2/" "$log" >"$out/log"
  if said="$(python3 tests/cuda/kernel_resources.py check "$out/log" docs/cuda.md)" || ! grep -q "$3" <<<"$said"; then
    echo "not found: $3"
    exit 1
  fi
}
refuses "0 bytes spill stores" "8 bytes spill stores" "spills 8 bytes"
refuses "0 bytes stack frame" "16 bytes stack frame" "a stack frame of 16 bytes"
refuses "Used [0-9]* registers" "Used 300 registers" "300 registers of 256 threads"
refuses "for 'sm_80'" "for 'sm_90a'" "compiled for"

if said="$("$program" --shape tiny --tokens 64 --steps 1 2>&1)"; then
  echo "SKIPPED: what train_step says without a GPU: there is one here"
else
  status=$?
  echo "$said"
  [[ $status == 1 ]]
  grep -q "no CUDA device 0" <<<"$said"
  grep -q "Run it where nvidia-smi shows a GPU" <<<"$said"
fi
