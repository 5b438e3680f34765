"""Thin entry point: see `python main_test.py --help` and lib/sniper/tools/test.py."""

import sys

from sniper.tools.test import main

if __name__ == "__main__":
    sys.exit(main())
