#!/usr/bin/env bash
# Builds the native code in place (lib/sniper/native/*.so).
usage() {
    cat <<'TEXT'
usage: bash scripts/compile.sh [--force] [--cuda]

Builds what has changed of the operators in lib/sniper/native: libsniper_ops.so for MXNet and the
Python module. Needs a C++17 compiler with OpenMP, and mxnet, cython and setuptools in the Python
in use: $PYTHON, else the active virtual environment, else .venv, else python3.

  --force   build all of it again
  --cuda    build the CUDA kernels, libsniper_cuda.so, too. Needs nvcc 11 or newer ($NVCC, else the
            one on PATH), no GPU. SNIPER_CUDA_ARCHS="70 75" builds for fewer architectures.
  --help    print this text
TEXT
}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cuda=false
force=()
for argument in "$@"; do
    case "$argument" in
        --cuda) cuda=true ;;
        --force) force=(--force) ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "compile.sh: unknown option '$argument'" >&2
            usage >&2
            exit 2
            ;;
    esac
done

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

"$python" setup.py --quiet build_ext --inplace ${force[@]+"${force[@]}"}
if $cuda; then
    "$python" scripts/build_cuda.py ${force[@]+"${force[@]}"}
fi
ls -l lib/sniper/native/*.so
