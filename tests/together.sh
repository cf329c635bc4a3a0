#!/usr/bin/env bash
# together.sh FILE...: one source of all tests among the files: what they include, then each in a namespace of its own.
set -euo pipefail
tests=()
for file in "$@"; do
  [[ "$file" == *_test.cc ]] && tests+=("$file")
done
# What compiles by itself, but not together. A name may be several literals, on several lines.
awk '
  FNR == 1 { depth = 0; macro = "" }
  /^[ \t]*#[ \t]*if/ { ++depth }
  /^[ \t]*#[ \t]*endif/ { --depth }
  depth && /^[ \t]*#[ \t]*include/ {
    printf "%s:%d: an #include inside #if, which would stand before all tests of the room without its condition. Write it outside\n", FILENAME, FNR
    bad = 1
  }
  match($0, /^[ \t]*(TEMPLATE_)?TEST_CASE\(/) {
    macro = substr($0, 1, RLENGTH)
    sub(/^[ \t]*/, "", macro)
    $0 = substr($0, RLENGTH + 1)
    name = ""
  }
  macro {
    while (match($0, /^[ \t]*"([^"\\]|\\.)*"/)) {
      literal = substr($0, 1, RLENGTH - 1)
      sub(/^[ \t]*"/, "", literal)
      name = name literal
      $0 = substr($0, RLENGTH + 1)
    }
    if ($0 ~ /^[ \t]*$/) next
    if (macro name in first) {
      printf "%s: the name of the test case \"%s\" is also in %s. Rename one: a room has each name once\n", FILENAME, name, first[macro name]
      bad = 1
    }
    first[macro name] = FILENAME
    macro = ""
  }
  END { exit bad }
' "${tests[@]}" </dev/null >&2
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
