#!/usr/bin/env bash
# examples/smollm2/run.sh with a producer or a trainer that fails. What it calls are stand-ins that do nothing else.
set -euo pipefail
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
mkdir -p "$out"/{examples/smollm2,tools/tokens,build/tokens-venv/bin,bin,built/examples/cli,work/smollm2-135m-instruct}
cp examples/smollm2/run.sh "$out/examples/smollm2/"
: >"$out/tools/setup.sh"
: >"$out/tools/tokens/setup.sh"
: >"$out/work/smollm2-135m-instruct/model.safetensors"
echo 'print("summary")' >"$out/examples/smollm2/summary.py"

# program NAME: a script from standard input.
program() {
  { echo '#!/usr/bin/env bash'; cat; } >"$out/$1"
  chmod +x "$out/$1"
}
program build/tokens-venv/bin/python <<<'true'
program bin/bazel <<<"[[ \$1 != info ]] || echo '$out/built'"
program built/examples/cli/eyas <<TEXT
case "\$1 \$STANDS_IN" in
  ingest\ *) echo \$\$ >'$out/pid' ;;&
  "ingest fails") echo "no room" >&2; exit 3 ;;
  "ingest outlives") exec sleep 300 ;;
  "train outlives") until [[ -s '$out/pid' ]]; do sleep 0.01; done; echo training; exit 5 ;;
esac
echo done
TEXT

# ends CODE WORDS...: how the script ends, and what it says, with the stand-ins of \$case.
ends() {
  local code=0 said word
  rm -f "$out/pid"
  said="$(PATH="$out/bin:$PATH" STANDS_IN="$case" bash "$out/examples/smollm2/run.sh" --work "$out/work" 2>&1)" || code=$?
  ((code == $1)) || { echo "$case: exit code $code, not $1: $said"; exit 1; }
  for word in "${@:2}"; do
    grep -qF -- "$word" <<<"$said" || { echo "$case: not said: $word, but: $said"; exit 1; }
  done
}

case=works ends 0 'producer: done' 'summary'
case=fails ends 1 'the producer (eyas ingest) ended with exit code 3' "$out/work/logs/ingest.progress"
grep -q 'no room' "$out/work/logs/ingest.progress"
case=outlives ends 5
if kill -0 "$(cat "$out/pid")" 2>/dev/null; then
  echo "the producer still runs"
  kill "$(cat "$out/pid")"
  exit 1
fi
