#!/usr/bin/env bash
# The library without Bazel: one compiler line, as in README.md.
set -euo pipefail
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
g++ -std=c++20 -fopenmp -Iinclude examples/hello/main.cc -o "$out/hello" -ldnnl -ldeflate -lcrypt
"$out/hello" | tee "$out/log"
first="$(sed -n '1s/.*loss \([0-9.]*\).*/\1/p' "$out/log")" last="$(sed -n '$s/.*loss \([0-9.]*\).*/\1/p' "$out/log")"
awk -v a="$first" -v b="$last" 'BEGIN { if (!(b < a / 2)) { print "the loss did not fall: " a " -> " b; exit 1 } }'

# Without OpenMP the pragmas mean nothing, and the library still compiles.
echo '#include <eyas/eyas.hpp>' | g++ -std=c++20 -fsyntax-only -Iinclude -x c++ -
