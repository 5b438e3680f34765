"""What is printed as a command is one: its program reads it, and (`-m slow`) it does its work."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from sniper.config import load_config
from sniper.tools.cli import TOOLS
from tests.docs.blocks import DOCUMENTS, ROOT
from tests.docs.checkout import as_this_processor_needs_it
from tests.docs.printed import all_commands, help_commands, help_text, tool_parser

COMMANDS = all_commands()
ENTRY_POINTS = {"main_train.py": "train", "main_test.py": "test", "demo.py": "demo"}
RECIPES = {path.stem for path in (ROOT / "configs").rglob("*.yml")}


def tool_of(words):
    """The tool and its arguments, or (None, ...) where the command is no tool of ours."""
    if words[0].endswith("sniper"):
        return words[1], words[2:]
    if words[1] in ENTRY_POINTS:
        return ENTRY_POINTS[words[1]], words[2:]
    return None, words[1:]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_program_reads_it(command, capsys):
    words = command.words
    if "--" in words:  # sniper launch ... -- the command of every process
        middle = words.index("--")
        read(["python", *words[middle + 1 :]], capsys)
        words = words[:middle]
    read(words, capsys)


def read(words, capsys):
    tool, arguments = tool_of(words)
    if tool in ("doctor", "--help") or words[0].endswith("pip"):
        return
    if tool is None:
        scripts_and_flags_exist(words)
        return
    try:
        args = tool_parser(tool).parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{' '.join(words)}\n{capsys.readouterr().err}")
    recipe = Path(getattr(args, "cfg", None) or "").stem
    if recipe in RECIPES:
        load_config(args.cfg, getattr(args, "overrides", None) or [])


def scripts_and_flags_exist(words):
    script = next((ROOT / word for word in words if word.endswith((".sh", ".py"))), None)
    if script is None:
        return
    assert script.is_file(), script
    family = script.parent.rglob("*.py") if "bench" in script.parts else [script]
    text = "".join(path.read_text(encoding="utf-8") for path in family)
    own = [w for w in words if w.startswith("--") and w not in ("--cfg", "--set")]
    assert [flag for flag in own if flag not in text] == []


def test_the_collection_sees_every_kind():
    places = {command.where for command in COMMANDS}
    assert {"README.md", "sniper detect --help", "examples/plain_train.py"} <= places
    assert "configs/faster/sniper_mobilenetv2_toy.yml" in places
    texts = [command.text for command in COMMANDS]
    assert any(text.startswith("sniper quantize --cfg") for text in texts)  # in backticks
    assert any(
        "\\" not in text and "--results output/results" in text for text in texts
    )  # two lines


# The commands are run where a newcomer stands: in a checkout with a small toy set and `data/mine`.

NOT_RUN = {
    r"quickstart\.sh": "the quickstart is run by itself: its training takes minutes",
    r"^(\.venv/bin/)?pip |^pytest": "changes the environment; a GPU",
    r"download_|import-weights|compile\.sh": "needs a network, a file of other projects, or nvcc",
    r"--hosts": "needs two machines (a stand-in for ssh is tested in tests/tools)",
    r"make-toy-data data/toy( |$)": "draws the whole set; the small one has its place here",
    r"res101|res50_e2e\.yml|mobilenetv2_e2e|coco_mini": "COCO, GPUs, or an imported backbone",
    r"ssh_vgg16_wider|faces_mini": "WIDER FACE, GPUs, or an imported backbone",
    r"torch_chips\.py": "needs PyTorch (tests/examples runs it where that is installed)",
    r"http_service\.py toy": "serves until it is stopped (tests/examples asks it)",
    r"aerial_scales": "the recipe that its page makes (test_pages.py trains with it)",
    r"plain_detect\.py picture\.jpg SNIPER": "weights of the reader's own recipe",
    r"--truth open_images": "the official tables (tests/evaluation runs the same with small ones)",
    r"--truth wider_face": "the official lists (tests/evaluation runs the same with them)",
    r"ILSVRC2014_devkit": "the kit of the challenge (tests/evaluation runs the same with it)",
    r"SUPER_CLASSES super_classes": "needs pictures of every class of the training set",
}


# Another example has trained the features anew since these classes were learnt.
BEFORE = {"sniper detect --help": "sniper fit-classes pets/ --cfg my.yml --out pets.npz"}


def why_not(text):
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, text)), None)


def test_every_exclusion_excludes_something():
    texts = [command.text for command in COMMANDS if command.where not in DOCUMENTS]
    assert [p for p in NOT_RUN if not any(re.search(p, text) for text in texts)] == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "where",
    sorted({c.where for c in COMMANDS if c.where not in DOCUMENTS and not why_not(c.text)}),
)
def test_it_does_its_work(where, checkout):
    """In their order, as one may read what another wrote (blocks of documents: test_pages.py)."""
    failed = []
    if where in BEFORE:
        checkout.must(BEFORE[where])
    for command in COMMANDS:
        if command.where == where and not why_not(command.text):
            done = checkout.run(as_this_processor_needs_it(command.text))
            if done.returncode:
                failed.append(f"{command}: exit {done.returncode}\n{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)


@pytest.mark.slow
def test_the_lines_that_read_an_archive(checkout):
    """`sniper export --help`: its example, then its lines of Python."""
    for command in help_commands("export"):
        checkout.must(command.text)
    lines = textwrap.dedent(help_text("export").partition("library only:\n\n")[2])
    check = "assert {'data', 'im_info'} <= set(symbol.list_inputs()) and params and len(classes)"
    (checkout.folder / "read.py").write_text(f"{lines}\n{check}\n")
    checkout.must("python read.py")


def test_every_tool_has_examples():
    without = {tool for tool in TOOLS if not help_commands(tool)}
    assert without == {"doctor"}
