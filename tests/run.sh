#!/usr/bin/env bash
# Installs what is missing and runs every test: `bash tests/run.sh [--quick]`.
# --quick leaves out the sanitizer runs. Closes with one line: N passed, N failed, N skipped.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
quick=0
[[ "${1:-}" == "--quick" ]] && quick=1

passed=0 failed=0 skipped=0
say() { printf '\n== %s (%d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }
count() { if (($1 == 0)); then passed=$((passed + 1)); else failed=$((failed + 1)); fi; }

# bazel_tests LABEL ARGUMENTS...: runs and counts test targets by their result lines.
bazel_tests() {
  local label="$1" log
  shift
  log="$(mktemp)"
  say "$label"
  bazel test --color=no --curses=no --show_progress_rate_limit=30 --keep_going "$@" 2>&1 | tee "$log" | grep -vE '^(Loading|Analyzing|INFO: (Analyzed|Found|From|Elapsed|[0-9]+ process)|.*ld\.gold: warning: Cannot export)'
  local status=${PIPESTATUS[0]} good bad
  good=$(grep -cE '^//.* (\(cached\) )?PASSED' "$log")
  bad=$(grep -cE '^//.* (FAILED|TIMEOUT|NO STATUS)' "$log")
  ((status != 0 && bad == 0)) && bad=1 # it did not build
  passed=$((passed + good)) failed=$((failed + bad))
  loud_skips "$log"
  incompatible_skips "$log"
  rm -f "$log"
}

# loud_skips LOG: prints and counts what the tests of a run say they left out (SKIPPED: why), by their own logs.
loud_skips() {
  local logs target said
  logs="$(bazel info bazel-testlogs 2>/dev/null)" || return 0
  while read -r target; do
    while IFS= read -r said; do
      echo "$target: $said"
      skipped=$((skipped + 1))
    done < <(grep -ahoE 'SKIPPED: .*' "$logs/${target/://}/test.log" 2>/dev/null)
  done < <(sed -nE 's#^//([^ ]+) .*(PASSED|FAILED).*#\1#p' "$1")
}

# incompatible_skips LOG: counts the tests that Bazel left out because a library is absent.
incompatible_skips() {
  local target
  while read -r target; do
    echo "$target: SKIPPED: a library that it needs is absent (Bazel named it above)"
    skipped=$((skipped + 1))
  done < <(sed -nE 's#^(//[^ ]+) +SKIPPED.*#\1#p' "$1")
}

# The packaging test builds with pkg-config and CMake; fuzz targets and sanitizer runs are made by clang.
bash tools/setup.sh cmake pkg-config clang libclang-rt-dev libomp-dev || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
bash tools/cuda/setup.sh || echo "no headers of cudnn-frontend: what needs them is skipped"
bash tools/tokens/setup.sh || echo "no packages for tools/tokens: its tests say what they leave out"

say "format"
mapfile -t sources < <(git ls-files '*.hpp' '*.cc' '*.cuh' '*.cu' 2>/dev/null)
clang-format --dry-run -Werror "${sources[@]}"
count $?

say "programs, examples and benchmarks build"
bazel build --color=no --curses=no --show_progress_rate_limit=30 //... 2>&1 | tail -3
count "${PIPESTATUS[0]}"

bazel_tests "tests" //...

say "another workspace uses the library"
(cd examples/consumer && bazel run --color=no --curses=no --show_progress_rate_limit=30 //:consumer 2>&1 | tail -4; exit "${PIPESTATUS[0]}")
count $?

if ((!quick)); then
  say "fuzz targets, ${EYAS_FUZZ_SECONDS:-60} s each"
  fuzz_log="$(mktemp)"
  bash tests/fuzz/run.sh "${EYAS_FUZZ_SECONDS:-60}" | tee "$fuzz_log"
  # One pass for each target, by the closing line.
  read -r fuzz_good fuzz_bad < <(sed -n 's/^\([0-9]*\) targets without a finding, \([0-9]*\) with one$/\1 \2/p' "$fuzz_log")
  passed=$((passed + ${fuzz_good:-0})) failed=$((failed + ${fuzz_bad:-1}))
  rm -f "$fuzz_log"
  say "clang-tidy over the library and the command line"
  clang-tidy --quiet examples/hello/main.cc examples/cli/main.cc -- -std=c++20 -Iinclude 2>/dev/null
  count $?
  bazel_tests "tests under AddressSanitizer and UndefinedBehaviorSanitizer" --config=sanitize --build_tests_only --test_tag_filters=-plain -- //tests/... //examples/... -//tests/programs/...
  bazel_tests "tests of threads under ThreadSanitizer" --config=tsan --build_tests_only --test_tag_filters=threads //tests/...
fi

gpu_tests=(//tests/cuda:cuda_{ops,golden,graphs,cudnn}_test)
if command -v nvidia-smi >/dev/null 2>&1; then
  bazel_tests "tests on the GPU" "${gpu_tests[@]}"
else
  for target in "${gpu_tests[@]}"; do
    echo "$target: SKIPPED: no GPU here (docs/cuda.md says what ran on one)"
    skipped=$((skipped + 1))
  done
fi
printf '\n'
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
