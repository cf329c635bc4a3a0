#!/usr/bin/env bash
# packaging/install.sh PREFIX: the headers, a pkg-config file and a CMake package.
set -euo pipefail
version=0.1.0
prefix="$(realpath -m "${1:?usage: packaging/install.sh PREFIX}")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
while IFS= read -r header; do
  install -D -m 644 "include/$header" "$prefix/include/$header"
done < <(cd include && find -L eyas \( -name '*.hpp' -o -name '*.cuh' \))
install -d "$prefix/share/pkgconfig"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" packaging/eyas.pc.in >"$prefix/share/pkgconfig/eyas.pc"
install -D -m 644 packaging/eyas-config.cmake "$prefix/share/cmake/eyas/eyas-config.cmake"
echo "eyas $version is in $prefix"
