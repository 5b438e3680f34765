"""Builds the documentation's site into build/site; a broken link, picture or reference is an error.

Without MkDocs (`pip install -e ".[docs]"`) it says so and does nothing.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    if importlib.util.find_spec("mkdocs") is None:
        print('the documentation is not built: MkDocs is missing (pip install -e ".[docs]")')
        return 0
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    # The theme advertises its successor on each run.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
