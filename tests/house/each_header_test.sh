#!/usr/bin/env bash
# Every header compiles on its own, and twice in one file; as many at a time as there are cores.
set -euo pipefail
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
export out

compile() {
  local header="$1" source="$out/${1//\//_}.cc"
  printf '#include "%s"\n#include "%s"\n' "$header" "$header" >"$source"
  g++ -std=c++20 -fopenmp -fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -Iinclude "$source" ||
    { echo "FAILED: $header"; return 1; }
  echo "$header" >>"$out/compiled"
}
export -f compile

headers="$(cd include && find -L eyas -name '*.hpp' | sort)"
xargs -P "$(nproc)" -I{} bash -c 'compile {}' <<<"$headers"
diff <(sort "$out/compiled") <(echo "$headers") # none was left out
