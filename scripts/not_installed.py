"""What main_train.py, main_test.py and demo.py say where the package cannot be imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = Path(".venv") / "bin" / "python"
EXIT_FAILED = 1


def leave(error: ModuleNotFoundError) -> NoReturn:
    """Ends the program with what to run; re-raises an error within the package."""
    package = (error.name or "").split(".")[0]
    if not package or error.name != package:
        raise error
    here = ROOT / ENVIRONMENT
    if here.is_file() and here.resolve() != Path(sys.executable).resolve():
        python = ENVIRONMENT if Path.cwd() == ROOT else here
        fix = f"the environment is there, take its Python: {python} {' '.join(sys.argv)}"
    else:
        folder = "" if Path.cwd() == ROOT else f"cd {ROOT} && "
        fix = (
            f"{folder}bash scripts/quickstart.sh makes an environment and tries everything; into "
            "an environment of yours: pip install -r requirements.txt && pip install "
            "--no-build-isolation --no-deps -e ."
        )
    print(
        f"error: the Python package {package} is not installed\n"
        f"  where: {sys.executable}\n  fix: {fix}",
        file=sys.stderr,
    )
    sys.exit(EXIT_FAILED)
