"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Threads that wait for work leave the processors to the other tests and their processes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import sniper  # noqa: F401  (prepares the process before any test imports MXNet)

# No test fails because the machine is busy.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")


REPO = Path(__file__).resolve().parents[1]


def pytest_pycollect_makeitem(obj):
    """What the package calls `test_plan` or `TestLoader` is no test."""
    return [] if str(getattr(obj, "__module__", "")).startswith("sniper.") else None


# Folders of tests whose files take long, the longest first.
LONG = ("e2e", "models", "native", "ops", "training", "examples", "runs", "tools", "docs")


def pytest_collection_modifyitems(items):
    """Long files come first, so that parallel workers, which get whole files, end together."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(LONG)))


@pytest.fixture(autouse=True)
def _fresh_logging() -> None:
    """Programs that run in the test process keep their log open; the next test has its own."""
    logger = logging.getLogger("sniper")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden vectors."""
    return REPO / "tests" / "golden"


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """Folder of real COCO images in the official layout; skips where they are not present."""
    return _shared_data("coco_mini", "real COCO images")


@pytest.fixture(scope="session")
def imagenet_det() -> Path:
    """Development kit of ILSVRC DET with annotations; skips where it is not present."""
    return _shared_data("imagenet_det", "development kit of ILSVRC DET")


@pytest.fixture(scope="session")
def imagenet_layout_coco() -> Path:
    """The annotations of `coco_mini` in the layout of ImageNet; skips where they are missing."""
    return _shared_data("imagenet_layout_coco", "annotations in the layout of ImageNet")


@pytest.fixture(scope="session")
def openimages() -> Path:
    """Official classes and hierarchy of Open Images; skips where they are missing."""
    return _shared_data("openimages", "tables of Open Images")


@pytest.fixture(scope="session")
def wider_lists() -> Path:
    """Official annotations and evaluation lists of WIDER FACE; skips where they are missing."""
    return _shared_data("wider_lists", "lists of WIDER FACE")


@pytest.fixture(scope="session")
def faces_mini() -> Path:
    """Real photos in the layout of WIDER FACE; skips where they are not present."""
    return _shared_data("faces_mini", "photos of faces")


def _shared_data(name: str, what: str) -> Path:
    shared = Path(os.environ.get("SNIPER_SHARED", REPO.parent / "shared"))
    folder = shared / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no {what} here: set SNIPER_SHARED to the folder with data/{name}")
    return folder


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts this test and the processes that it starts.

    Also where the tests run with SIGINT ignored (`command &` in a script, some CI runners), which
    processes inherit.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
