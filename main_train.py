"""Thin entry point: see `python main_train.py --help` and lib/sniper/tools/train.py."""

import sys

try:
    from sniper.tools.train import main
except ModuleNotFoundError as error:
    from scripts.not_installed import leave

    leave(error)

if __name__ == "__main__":
    sys.exit(main())
