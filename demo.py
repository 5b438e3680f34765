"""Thin entry point: see `python demo.py --help` and lib/sniper/tools/demo.py."""

import sys

try:
    from sniper.tools.demo import main
except ModuleNotFoundError as error:
    from scripts.not_installed import leave

    leave(error)

if __name__ == "__main__":
    sys.exit(main())
