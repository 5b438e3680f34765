#!/usr/bin/env bash
# Sets up the environment, checks style, types and documentation, and runs the tests. Arguments go
# to pytest:
#   bash scripts/test.sh                     the default suite
#   bash scripts/test.sh -m slow             the long tests
#   bash scripts/test.sh tests/ops -k nms    some of them
# Two tests run at once (-n 0: one); those of a file stay together and share what it has made.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

ensure_environment
ruff format --check .
ruff check .
python scripts/build_docs.py & site=$!
mypy
wait $site
# Each of the two has half of the processors.
processors=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((processors > 1 ? processors / 2 : 1))}
exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
