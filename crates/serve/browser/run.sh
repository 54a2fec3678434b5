#!/usr/bin/env bash
# The page in a real browser, and the examples of docs/serve.md. Wants target/release/diffbir, Node 20 or
# newer and Python; what is missing is installed on Debian.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
command -v chromium > /dev/null || missing+=(chromium)
command -v npm > /dev/null || missing+=(nodejs npm)
command -v curl > /dev/null || missing+=(curl)
python3 -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
[ -d node_modules ] || npm ci --no-audit --no-fund --silent
if ! [ -x venv/bin/python ]; then
    python3 -m venv venv
    venv/bin/pip install --quiet requests==2.34.2
fi
npm test
