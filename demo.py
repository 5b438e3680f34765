"""Thin entry point: see `python demo.py --help` and lib/sniper/tools/demo.py."""

import sys

from sniper.tools.demo import main

if __name__ == "__main__":
    sys.exit(main())
