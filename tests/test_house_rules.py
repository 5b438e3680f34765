"""Rules of the house that a reader cannot check by eye."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[1] / "lib"
PACKAGE = LIB / "sniper"

# Bottom first: a room imports only rooms of lower rows, and its own.
FLOORS = [
    ["errors", "boxes", "files", "process", "progress"],
    ["native"],
    ["config"],
    ["data"],
    ["targets"],
    ["ops"],
    ["chips"],
    ["models"],
    ["evaluation"],
    ["loader"],
    ["vis"],
    ["training"],
    ["inference"],
    ["runs"],
    ["tools"],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_MXNET = ["boxes", "config", "data", "targets", "chips", "evaluation", "loader"]
# Only orchestrators see the configuration; everything below gets plain values.
WITHOUT_CONFIG = [
    "data", "targets", "ops", "chips", "models", "evaluation", "loader", "vis", "inference",
    "training",
]  # fmt: skip


def imported_modules(tree, module, is_package):
    """Full names of all modules that a file imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + int(is_package)]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def module_name(path):
    parts = path.relative_to(LIB).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return set(imported_modules(tree, module_name(path), path.name == "__init__.py"))


def room_of(module):
    """Room of a module of the package; None for others and for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "sniper" and len(parts) > 1 else None


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_the_walk_understands_every_form_of_import():
    text = (
        "import sniper.data.image\nfrom sniper import boxes as b\nfrom sniper.chips import focus\n"
        "from ..loader import test\nfrom . import gt\ndef f():\n    import mxnet as mx\n"
    )
    found = set(imported_modules(ast.parse(text), "sniper.targets.rpn", False))
    assert found == {
        "sniper.data.image",
        "sniper.boxes",
        "sniper.chips.focus",
        "sniper.loader.test",
        "sniper.targets.gt",
        "mxnet",
    }


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_rooms_import_only_lower_rooms(path):
    room = room_of(module_name(path))
    if room is None:
        return
    assert room in FLOOR_OF, f"{room} has no floor: add it to FLOORS"
    wrong = [
        module
        for module in imports_of(path)
        if room_of(module) in FLOOR_OF and FLOOR_OF[room_of(module)] > FLOOR_OF[room]
    ]
    assert not wrong, f"{module_name(path)} imports from a higher floor: {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_low_rooms_see_neither_mxnet_nor_the_configuration(path):
    room = room_of(module_name(path))
    imports = imports_of(path)
    if room in WITHOUT_MXNET:
        assert not [module for module in imports if module.split(".")[0] == "mxnet"]
    if room in WITHOUT_CONFIG:
        assert not [module for module in imports if room_of(module) == "config"]


def test_rooms_without_mxnet_import_with_mxnet_blocked():
    modules = [module_name(path) for path in SOURCES if room_of(module_name(path)) in WITHOUT_MXNET]
    assert {room_of(module) for module in modules} <= set(WITHOUT_MXNET)
    text = (
        "import importlib, sys\n"
        "sys.modules['mxnet'] = None\n"
        f"for module in {modules!r}:\n    importlib.import_module(module)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={"PYTHONPATH": str(LIB), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_does_not_import_mxnet():
    text = "import sniper, sys; sys.exit('mxnet' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", text], env={"PYTHONPATH": str(LIB)}, timeout=60, check=True
    )
