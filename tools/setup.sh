#!/usr/bin/env bash
# tools/setup.sh [MORE_PACKAGES...]: installs what building needs on Debian 12, and the packages named;
# quiet and quick when everything is there.
set -euo pipefail
packages=(
  bazel-bootstrap bazel-rules-java bazel-rules-proto bazel-platforms g++ clang-format clang-tidy python3-venv
  nlohmann-json3-dev catch2 libdnnl-dev libdeflate-dev libxxhash-dev libcli11-dev libssl-dev libucx-dev libsqlite3-dev libgloo-dev
  "$@"
)
missing=()
for p in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null)" == "ii " ]] || missing+=("$p")
done
((${#missing[@]})) || exit 0
echo "installing: ${missing[*]}"
sudo=""; [[ $(id -u) == 0 ]] || sudo=sudo
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
