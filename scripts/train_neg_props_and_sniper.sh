#!/usr/bin/env bash
# Negative chip mining under its 2018 name: see --help, and lib/sniper/tools/mine_negatives.py.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && export PATH="$PWD/.venv/bin:$PATH"
# Debian and Ubuntu have a python3, and no python.
exec "$(command -v python || command -v python3 || echo python3)" -m sniper.tools.cli mine-negatives "$@"
