"""Rules of the house that a reader cannot check by eye."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[1] / "lib"
PACKAGE = LIB / "sniper"

# Bottom first: a room imports only rooms of lower rows, and its own.
FLOORS = [
    ["errors", "boxes", "files", "safe_yaml", "locks", "process", "progress", "children"],
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
WITHOUT_MXNET = [
    "boxes", "children", "config", "data", "targets", "chips", "evaluation", "loader", "inference",
]  # fmt: skip
# The one engine under detection; only runs/ chooses it.
MXNET_EXECUTOR = "sniper.inference.mxnet_executor"
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


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def imports_of(path):
    return set(imported_modules(tree_of(path), module_name(path), path.name == "__init__.py"))


def room_of(module):
    """Room of a module of the package; None for others and for the package itself."""
    parts = module.removesuffix(".__main__").split(".")
    return parts[1] if parts[0] == "sniper" and len(parts) > 1 else None


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_the_walk_understands_every_form_of_import():
    text = (
        "import sniper.data.image\nfrom sniper import boxes as b\nfrom sniper.chips import focus\n"
        "from ..loader import train\nfrom . import gt\ndef f():\n    import mxnet as mx\n"
    )
    found = set(imported_modules(ast.parse(text), "sniper.targets.rpn", False))
    assert found == {
        "sniper.data.image",
        "sniper.boxes",
        "sniper.chips.focus",
        "sniper.loader.train",
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
    if room in WITHOUT_MXNET and module_name(path) != MXNET_EXECUTOR:
        assert not [module for module in imports if module.split(".")[0] == "mxnet"]
    if room in WITHOUT_CONFIG:
        assert not [module for module in imports if room_of(module) == "config"]


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_only_runs_choose_the_engine_of_detection(path):
    users = [name for name in imports_of(path) if name.startswith(MXNET_EXECUTOR)]
    assert not users or room_of(module_name(path)) == "runs"


def test_rooms_without_mxnet_import_with_mxnet_blocked():
    modules = [module_name(path) for path in SOURCES if room_of(module_name(path)) in WITHOUT_MXNET]
    modules.remove(MXNET_EXECUTOR)
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


def imports_when_run(path):
    """Imports of a file without those for annotations only (`if TYPE_CHECKING:`)."""
    body = [
        node
        for node in tree_of(path).body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    tree = ast.Module(body, type_ignores=[])
    return set(imported_modules(tree, module_name(path), path.name == "__init__.py"))


def test_no_file_imports_itself_by_a_detour():
    names = {module_name(path) for path in SOURCES}

    def file_of(module):
        while module not in names:
            module = module.rpartition(".")[0]
        return module

    arrows = {
        module_name(path): {
            file_of(module) for module in imports_when_run(path) if module.startswith("sniper.")
        }
        - {"sniper", module_name(path)}
        for path in SOURCES
    }
    done, on_the_way = set(), []

    def walk(module):
        assert module not in on_the_way, " -> ".join([*on_the_way, module])
        if module in done:
            return
        on_the_way.append(module)
        for target in sorted(arrows[module]):
            walk(target)
        done.add(on_the_way.pop())

    for module in sorted(arrows):
        walk(module)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_only_runs_and_tools_see_the_configuration(path):
    """It is read once: below `runs/` everything takes parts of a plan."""
    if room_of(module_name(path)) in ("config", "runs", "tools"):
        return
    tree = tree_of(path)
    arguments = [node for node in ast.walk(tree) if isinstance(node, ast.arg)]
    seen = [a.arg for a in arguments if a.arg == "cfg" or "EasyDict" in ast.unparse(a)]
    assert not seen
    assert not [module for module in imports_of(path) if module.startswith("easydict")]


PLAN_PARTS = ("plan", "resolve", "folders", "levels", "rates", "notes")


def test_in_a_run_the_configuration_is_asked_for_in_one_place():
    """`cfg.KEY` stands in `runs/plan.py` and its parts."""
    asked = {}
    for path in (PACKAGE / "runs").glob("*.py"):
        tree = tree_of(path)
        asked[path.stem] = {
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "cfg"
        }
    plans = set().union(*(asked.pop(part) for part in PLAN_PARTS))
    assert len(plans) > 10
    # Which run it is to be, and under which name the user knows it.
    assert set().union(*asked.values()) <= {"cfg.TEST", "cfg.gpus", "cfg.name"}


ROOT = LIB.parent
# Test data is what it is, and this file holds examples of what is refused.
NO_TEXTS = [ROOT / "tests" / "golden", Path(__file__).resolve()]
TEXT_ENDINGS = {
    *(".py", ".pyi", ".pyx", ".pxi", ".h", ".cuh", ".cc", ".cu"),
    *(".md", ".txt", ".yml", ".yaml", ".toml", ".sh", ".cff"),
}
OUTSIDE = {
    "a specification": r"(?i)\bspec(?:ification)?s?(?::\s*|\s+)"
    r"(?:section\b|(?:[a-z_]+ )?(?:[a-f]\.)?\d)|\bthe specification\b",
    # The papers' sections are written out.
    "a section sign": r"\u00a7",
    "a number in a list of hazards": r"\bH-\d+\b",
    "a numbered heading": r"(?<![\w.\"'-])[A-F]\.\d{1,2}(?![\w.])",
    "an issue": r"(?i)\bissues?\s*#?\d+|(?<![\w&])GH-\d+|(?<=[\s(])#\d{1,4}\b",
}
NAME_OF_A_TEXT = re.compile(r"[\w./-]*\w\.md\b")


def references_outside(text, names):
    """What a text refers to that a reader of the repository cannot open; `names` of its texts."""
    references = [
        f"{kind}: {match[0]!r}"
        for kind, pattern in OUTSIDE.items()
        for match in re.finditer(pattern, text)
    ]
    missing = [name for name in NAME_OF_A_TEXT.findall(text) if Path(name).name not in names]
    return references + [f"no such text: {name!r}" for name in missing]


def texts_of_the_repository():
    folders = ("lib", "scripts", "tests", "configs", "docs", "examples")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    paths += [path for path in sorted(ROOT.iterdir()) if path.is_file()]
    return [
        path
        for path in paths
        if path.suffix in TEXT_ENDINGS
        and not any(path == excluded or excluded in path.parents for excluded in NO_TEXTS)
    ]


def test_no_text_refers_to_a_document_outside_of_the_repository():
    """A reader has the repository and the published papers, nothing else."""
    paths = texts_of_the_repository()
    assert {path.suffix for path in paths} == TEXT_ENDINGS, "a folder or a kind of text is missing"
    made_with_the_site = {"keys.md", "commands.md"}
    names = {path.name for path in paths} | {"README.md"} | made_with_the_site
    wrong = {}
    for path in paths:
        references = references_outside(path.read_text(encoding="utf-8"), names)
        if references:
            wrong[str(path.relative_to(ROOT))] = references
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "# spec: pipeline 7.3",
        "# see spec 4.1 for the rule",
        "(specification 4.3 to 4.8)",
        '"""Section 5.3 of the specification, literally."""',
        "# As in \u00a7 4.2.",
        "must not keep the loader from being collected (H-64).",
        "# Missing proposals are filled as B.3 says.",
        "Fixed in issue 12.",
        "# a known problem (#119)",
        "see design.md",
        "see ../plans/house.md",
    ],
)
def test_references_outside_are_recognised(text):
    assert references_outside(text, {"README.md"})


@pytest.mark.parametrize(
    "text",
    [
        "spec: DetectorSpec,",
        "from sniper.models.spec import DetectorSpec",
        "(AutoFocus, section 3.1; 2018 behaviour)",
        'Micikevicius et al., "Mixed Precision Training" (2018), section 3.2.',
        "SHA-256 of 3 files, AVX-512, classes 1 ... C-1",
        "array_C.5f + x.F.0 + A.B",
        "the batch has C. 3 of them",
        "see README.md",
    ],
)
def test_other_texts_are_no_references_outside(text):
    assert not references_outside(text, {"README.md"})
