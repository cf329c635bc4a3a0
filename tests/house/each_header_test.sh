#!/usr/bin/env bash
# Every header compiles on its own, and twice in one file.
set -euo pipefail
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
bad=0
for header in $(cd include && find -L eyas -name '*.hpp' | sort); do
  printf '#include "%s"\n#include "%s"\n' "$header" "$header" >"$out/one.cc"
  g++ -std=c++20 -fopenmp -fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -Iinclude "$out/one.cc" || { echo "FAILED: $header"; bad=1; }
done
exit $bad
