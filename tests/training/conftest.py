"""Fixtures of the training tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """The module `step_toys` beside this file: a tiny network and its batches."""
    path = Path(__file__).with_name("step_toys.py")
    spec = importlib.util.spec_from_file_location("step_toys", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
