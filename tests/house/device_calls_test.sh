#!/usr/bin/env bash
# Runs the check on the tree, and on copies with what it must find.
set -euo pipefail
python3 tests/house/device_calls_test.py .
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT

# finds WHAT FILE SED: the check fails on a copy whose FILE was changed, and names WHAT.
finds() {
  rm -rf "$out/copy"
  mkdir -p "$out/copy/include"
  cp -rL include/eyas "$out/copy/include/"
  chmod -R u+w "$out/copy"
  sed -i "$3" "$out/copy/include/eyas/$2"
  if cmp -s "include/eyas/$2" "$out/copy/include/eyas/$2"; then
    echo "nothing was changed in $2 by: $3"
    exit 1
  fi
  local said
  if said="$(python3 tests/house/device_calls_test.py "$out/copy")" || ! grep -qF "$1" <<<"$said"; then
    echo "not found: $1 in $2"
    exit 1
  fi
}
finds 'the status of cudaStreamSynchronize(...) is lost' device/cuda_context.cuh 's/ignored(cudaStreamSynchronize(stream_.get()))/cudaStreamSynchronize(stream_.get())/'
finds 'the status of cudaFreeAsync(...) is lost' device/cuda_memory.cuh 's/ignored(status);.*//;s/if (lost_ == cudaSuccess) lost_ = status;//'
finds 'the status of cublasLtMatmul(...) is lost' device/cuda_products.cuh 's/cublasLtMatmul(handle_/0, &/'
finds 'the status of cudaGraphLaunch(...) is lost' device/cuda_recording.cuh 's/detail::check_cuda(cudaGraphLaunch(\(.*\)), "cudaGraphLaunch")/cudaGraphLaunch(\1)/'
finds 'names a device, Cuda' trainer/trainer.hpp '$a inline void on(const Cuda&);'
finds 'names a device, eyas/device/cuda' model/eagle3.hpp '1a #include "eyas/device/cuda.cuh"'
