"""`python -m sniper` is the command `sniper`."""

import sys

from sniper.tools.cli import main

sys.exit(main())
