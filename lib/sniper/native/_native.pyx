# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
# distutils: language=c++
"""Python face of the kernels for host code (no MXNet; the GIL is released while they run).

Arrays come and go as C-contiguous NumPy arrays of the documented dtype. Only typed memoryviews are
used, so that the build needs no NumPy headers.
"""

import itertools

import numpy as np

include "_checks.pxi"
include "_isa.pxi"
include "_proposals.pxi"
include "_anchor_mining.pxi"
include "_masks.pxi"
include "_pooling.pxi"
include "_chips_nms.pxi"
include "_targets.pxi"
include "_batch.pxi"
include "_epoch.pxi"
include "_sgd.pxi"
