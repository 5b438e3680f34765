"""Thin entry point: see `python main_train.py --help` and lib/sniper/tools/train.py."""

import sys

from sniper.tools.train import main

if __name__ == "__main__":
    sys.exit(main())
