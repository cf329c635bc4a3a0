#!/usr/bin/env bash
# What tests/together.sh makes of small files, and what it refuses by name.
set -euo pipefail
together="$PWD/tests/together.sh"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
cd "$out"
mkdir room
: >room/beside.hpp

# file NAME: from standard input.
file() { cat >"room/$1_test.cc"; }
# refuses WORDS...: the script fails on the room's files, and says all of them.
refuses() {
  local said word
  if said="$("$together" room/*_test.cc 2>&1 >/dev/null)"; then
    echo "not refused: $*"
    exit 1
  fi
  for word in "$@"; do
    grep -qF -- "$word" <<<"$said" || { echo "not said: $word, but: $said"; exit 1; }
  done
}

file a <<'TEXT'
#include <vector>
#include "beside.hpp"
TEST_CASE("one") {}
TEMPLATE_TEST_CASE("two", "", float) {}
TEXT
file b <<'TEXT'
#include <vector>
#ifdef SOMETHING
TEST_CASE("three") {}
#endif
#include <map>
TEST_CASE(
    "one "
    "and \"more\"") {}
TEST_CASE("two") {}
TEXT
diff <("$together" room/beside.hpp room/*_test.cc) - <<'TEXT'
#include <vector>
#include "room/beside.hpp"
#include <map>
namespace in_room_a_test_cc {
#include "room/a_test.cc"
}
namespace in_room_b_test_cc {
#include "room/b_test.cc"
}
TEXT

file c <<'TEXT'
TEST_CASE("one and "
          "\"more\"") {}
TEXT
refuses 'room/c_test.cc: ' '"one and \"more\""' 'is also in room/b_test.cc'
file c <<'TEXT'
TEMPLATE_TEST_CASE("two", "", float) {}
TEXT
refuses 'room/c_test.cc: ' '"two"' 'is also in room/a_test.cc'
file c <<'TEXT'
TEST_CASE("twice") {}
TEST_CASE("twice") {}
TEXT
refuses 'room/c_test.cc: ' 'is also in room/c_test.cc'
file c <<'TEXT'
#if 1
#ifdef _OPENMP
#endif
# include <omp.h>
#endif
TEXT
refuses 'room/c_test.cc:4: ' 'inside #if' 'Write it outside'
