"""Thin entry point: see `python main_test.py --help` and lib/sniper/tools/test.py."""

import sys

try:
    from sniper.tools.test import main
except ModuleNotFoundError as error:
    from scripts.not_installed import leave

    leave(error)

if __name__ == "__main__":
    sys.exit(main())
