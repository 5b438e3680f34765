"""SNIPER: efficient multi-scale training of object detectors on stock MXNet.

Importing this package prepares the process for MXNet (see `sniper.process`) but does not
import MXNet itself, so that data workers stay small.
"""

from sniper.process import prepare_process

__version__ = "0.1.0"

prepare_process()
