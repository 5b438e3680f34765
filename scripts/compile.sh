#!/usr/bin/env bash
# Rebuilds the native code in place (lib/sniper/native/*.so); `--force` rebuilds all of it.
# Needs a C++17 compiler with OpenMP, and mxnet, cython and setuptools in the Python in use:
# $PYTHON, else the active virtual environment, else .venv, else python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-}"
if [[ -z "$python" ]]; then
    if [[ -n "${VIRTUAL_ENV:-}" ]]; then
        python="$VIRTUAL_ENV/bin/python"
    elif [[ -x .venv/bin/python ]]; then
        python=.venv/bin/python
    else
        python=python3
    fi
fi

"$python" setup.py --quiet build_ext --inplace "$@"
ls -l lib/sniper/native/*.so
