#!/usr/bin/env bash
# together.sh FILE...: one source of all tests among the files: what they include, then each in a namespace of its own.
set -euo pipefail
tests=()
for file in "$@"; do
  [[ "$file" == *_test.cc ]] && tests+=("$file")
done
for file in "${tests[@]}"; do
  while IFS= read -r line; do
    name="$(sed -nE 's/^#include "([^"]*)".*/\1/p' <<<"$line")"
    beside="$(dirname "$file")/$name" # a header beside the test is no longer beside what includes it
    if [[ -n "$name" && -e "$beside" ]]; then echo "#include \"$beside\""; else echo "$line"; fi
  done < <(grep '^#include ' "$file")
done | awk '!seen[$0]++'
for file in "${tests[@]}"; do
  printf 'namespace in_%s {\n#include "%s"\n}\n' "$(tr -c 'A-Za-z0-9\n' _ <<<"$file")" "$file"
done
