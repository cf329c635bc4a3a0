#!/usr/bin/env bash
# Installs the library and builds a program against it with pkg-config and with CMake.
set -euo pipefail
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
bash packaging/install.sh "$out/prefix with space"
mv "$out/prefix with space" "$out/moved" # CMake packages may be moved; pkg-config files say where they are
bash packaging/install.sh "$out/prefix"
want="$(cd include && find -L eyas -type f | sort)" got="$(cd "$out/prefix/include" && find eyas -type f | sort)"
[[ "$want" == "$got" ]] || { echo "not every header was installed"; exit 1; }

# One header for each library that has to be linked.
cat >"$out/main.cc" <<'PROGRAM'
#include <cstdio>
#include <eyas/core/checksum.hpp>
#include <eyas/core/json.hpp>
#include <eyas/device/cpu.hpp>
#include <eyas/store/credential.hpp>
int main() {
    const float a[] = {1, 2, 3, 4};
    float c[4];
    eyas::Cpu().matmul(eyas::Matmul<float, float>{.m = 2, .n = 2, .k = 2, .a = a, .lda = 2,
                                                  .b = a, .ldb = 2, .c = c, .ldc = 2});
    const bool token = eyas::detail::credential_matches("t", eyas::detail::make_credential_record("t"));
    std::printf("%g %08x %s %d\n", c[3], eyas::crc32(std::as_bytes(std::span("123456789", 9))),
                eyas::Json{{"a", 1}}.dump().c_str(), token);
}
PROGRAM
check() {
  local said
  said="$("$1")"
  [[ "$said" == '22 cbf43926 {"a":1} 1' ]] || { echo "$1 says: $said"; exit 1; }
}

export PKG_CONFIG_PATH="$out/prefix/share/pkgconfig"
# shellcheck disable=SC2046
g++ -std=c++20 "$out/main.cc" -o "$out/with_pkg_config" $(pkg-config --cflags --libs eyas)
check "$out/with_pkg_config"

cat >"$out/CMakeLists.txt" <<'PROJECT'
cmake_minimum_required(VERSION 3.20)
project(consumer CXX)
find_package(eyas CONFIG REQUIRED)
add_executable(with_cmake main.cc)
target_link_libraries(with_cmake eyas::eyas)
PROJECT
cmake -S "$out" -B "$out/build" -DCMAKE_PREFIX_PATH="$out/moved" >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
cmake --build "$out/build" >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
check "$out/build/with_cmake"
