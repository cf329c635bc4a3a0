#!/usr/bin/env bash
# tests/fuzz/run.sh [SECONDS=60] [TARGET...]: builds the fuzz targets with clang's libFuzzer and runs
# each for that long, two at a time, from its corpus. Prints executions and coverage; a crash, a leak,
# a hang or too much memory keeps its input beside the corpus' copy and ends in a non-zero status.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
seconds="${1:-60}"
shift || true
work="${EYAS_FUZZ_DIR:-${TMPDIR:-/tmp}/eyas-fuzz}"
mkdir -p "$work"
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cd tests/fuzz && ls ./*_fuzz.cc | sed 's/^\.\///; s/_fuzz\.cc$//')
compiler="${EYAS_FUZZ_CXX:-clang++}"
command -v "$compiler" >/dev/null || { echo "no $compiler: run tools/setup.sh clang libclang-rt-dev" >&2; exit 1; }

# one TARGET: builds and runs it; its result is the last line of TARGET.result.
one() {
  local name="$1" dir="$work/$1"
  rm -rf "$dir" && mkdir -p "$dir/grown"
  if ! "$compiler" -std=c++20 -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=all -Wno-pass-failed -Iinclude -Itests/fuzz "tests/fuzz/${name}_fuzz.cc" \
    -o "$dir/run" -ldeflate -lcrypt -lcrypto -lpthread >"$dir/log" 2>&1; then
    echo "$name: does not build; see $dir/log" >"$dir/result"
    return 1
  fi
  "$dir/run" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
    -malloc_limit_mb=512 -print_final_stats=1 -artifact_prefix="$dir/" \
    "$dir/grown" "tests/fuzz/corpus/$name" >>"$dir/log" 2>&1
  local status=$? runs coverage
  runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$dir/log")
  coverage=$(grep -oE 'cov: [0-9]+' "$dir/log" | tail -1)
  printf '%-16s %10s runs, %s edges\n' "$name" "${runs:-0}" "${coverage#cov: }" >"$dir/result"
  ((status == 0)) && return 0
  echo "$name: FOUND $(ls "$dir" | grep -E '^(crash|leak|oom|timeout|slow)-' | tr '\n' ' ')in $dir; see $dir/log" >>"$dir/result"
  return 1
}

failed=0
for ((i = 0; i < ${#targets[@]}; i += 2)); do
  pids=()
  for name in "${targets[@]:i:2}"; do
    one "$name" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=$((failed + 1)); done
  for name in "${targets[@]:i:2}"; do cat "$work/$name/result"; done
done
echo "$((${#targets[@]} - failed)) targets without a finding, $failed with one"
((failed == 0))
