# Sourced by quickstart.sh and test.sh: makes .venv, installs the requirements and the package.
# A second call finds everything in place and does nothing. Set PYTHON to choose an interpreter.

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.10 python3.12 python3.9 python3}; do
    if "$candidate" -c 'import ensurepip, venv, sys; sys.exit(not (3, 9) <= sys.version_info < (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python 3.9 to 3.12 with the venv module was found (MXNet's last wheel runs on no other). Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python3.11 bash $0" >&2
  exit 1
}

# Everything that an installed environment depends on; a change of it means a new installation.
environment_key() {
  { cat requirements*.txt setup.py pyproject.toml
    find lib/sniper/native -type f \( -name '*.cc' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxi' \) -print0 |
      sort -z | xargs -0 cat
    pwd
  } | sha256sum | cut -d' ' -f1
}

# Runs pip with a line for each package as it is fetched, and all of its output where it fails.
announce_packages() {
  local log=.venv/pip-install.log
  if "$@" > >(tee "$log" | sed -n -u -e 's/^ *\(Downloading\|Using cached\) \([^ ]*\) \(([0-9].*)\).*/   \2 \3/p' -e 's/^Installing collected packages.*/   unpacking the packages: a minute/p') 2> .venv/pip-errors.log; then
    return
  fi
  tail -n 20 "$log" .venv/pip-errors.log >&2
  echo "error: the packages could not be installed; all of pip's words: $log" >&2
  return 1
}

ensure_environment() {
  command -v g++ >/dev/null || { echo "A C++17 compiler is needed (Debian, Ubuntu: apt-get install g++)." >&2; exit 1; }
  local stamp=.venv/sniper-environment key
  key=$(environment_key)
  if [ ! -x .venv/bin/python ]; then
    local python
    python=$(find_python) || exit 1
    echo "== making an environment in .venv with $python"
    "$python" -m venv .venv || { rm -rf .venv; exit 1; }
  fi
  if [ "$(cat $stamp 2>/dev/null)" != "$key" ]; then
    echo "== installing the requirements into .venv and building the operators: 0.7 GB, some minutes with a fast connection"
    announce_packages .venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
    echo "   building the operators: about a minute"
    # The requirements hold all that the build needs, so no second environment is made for it.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
    echo "$key" > $stamp
  fi
  export PATH="$PWD/.venv/bin:$PATH"
}
