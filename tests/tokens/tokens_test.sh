#!/usr/bin/env bash
# Runs tests/tokens by the Python that has the packages of tools/tokens/requirements.txt: EYAS_TOKENS_PYTHON, else that
# of tools/tokens/setup.sh, else the machine's. Without them only what needs none is run.
set -euo pipefail
root="$(dirname "$(dirname "$(dirname "$(readlink -f tools/tokens/eyas_tokens.py)")")")"
python="${EYAS_TOKENS_PYTHON:-$root/build/tokens-venv/bin/python}"
[[ -x "$python" ]] || python="$(command -v python3)"
export PYTHONDONTWRITEBYTECODE=1
cd tests/tokens
tests=(files_test)
if "$python" -c 'import jinja2, tokenizers' 2>/dev/null; then
  tests+=(chats_test refusals_fault_test rollouts_test stop_fault_test peer_parity_test)
else
  echo "SKIPPED: what needs the packages of tools/tokens: $python has none (bash tools/tokens/setup.sh)"
fi
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
"$python" -m unittest -v "${tests[@]}" 2>&1 | tee "$log"
sed -nE "s/.*\.\.\. skipped ['\"](.*)['\"]$/SKIPPED: \1/p" "$log"
