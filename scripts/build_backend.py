"""How pip builds this project: setuptools, with MXNet at hand unless it is not wanted.

The operators for MXNet's graphs are compiled against its headers. With `SNIPER_WITHOUT_MXNET=1`
they are left out, for machines that only detect with ONNX graphs or cut chips (Python 3.13, NumPy
2): `SNIPER_WITHOUT_MXNET=1 pip install ".[onnx]"`.
"""

from __future__ import annotations

import os

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (a backend has all of its functions)

WITHOUT_MXNET = "SNIPER_WITHOUT_MXNET"
HEADERS = "mxnet==1.9.1"


def _with_headers(requirements: list[str]) -> list[str]:
    return requirements if os.environ.get(WITHOUT_MXNET) else [*requirements, HEADERS]


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:
    """What a wheel is built with."""
    return _with_headers(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: dict | None = None) -> list[str]:
    """What an editable install is built with."""
    return _with_headers(build_meta.get_requires_for_build_editable(config_settings))
