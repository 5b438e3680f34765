#!/usr/bin/env bash
# Negative chip mining under its 2018 name: see --help, and lib/sniper/tools/mine_negatives.py.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && export PATH="$PWD/.venv/bin:$PATH"
exec python -m sniper.tools.cli mine-negatives "$@"
