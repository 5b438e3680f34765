"""Every command that the project prints for its users: documents, help texts, recipes, examples."""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sniper.tools.cli import TOOLS
from tests.docs.blocks import DOCUMENTS, ROOT, blocks_of

PROGRAM = r"(?:\.venv/bin/)?(?:sniper|python|bash|pip|pytest)"
# Words that stand for something of the reader's: `<model folder>`, `FILE.params`, `--jobs N`.
PLACEHOLDER = re.compile(r"<.*>|\.\.\.|(?<![\w-])(?:N|ADDRESS|HEX|NAME|PATH|FILE\S*)(?![\w-])")
MENTION_WORDS = 3  # `sniper quantize --eval` in a sentence names a flag; longer spans are commands


@dataclass(frozen=True)
class Command:
    """A command as printed, `where` it stands, and what the shell makes of it."""

    where: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def document_commands(name: str) -> list[Command]:
    """The lines of the blocks of a document."""
    shell = "\n".join(block.text for block in blocks_of(name) if block.language == "bash")
    return [Command(name, text) for text in _command_lines(shell) if not PLACEHOLDER.search(text)]


def prose_commands(name: str) -> list[Command]:
    """Whole commands in backticks, in the sentences of a document."""
    prose, inside = [], False
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            prose.append(line)
    spans = re.findall(rf"`({PROGRAM}\s[^`]+)`", "\n".join(prose))
    spans = [" ".join(span.split()) for span in spans if len(span.split()) > MENTION_WORDS]
    return [Command(f"{name}, prose", text) for text in spans if not PLACEHOLDER.search(text)]


def help_commands(tool: str) -> list[Command]:
    """The examples below the help of `sniper <tool>`."""
    return [Command(f"sniper {tool} --help", line) for line in _command_lines(help_text(tool))]


def help_text(tool: str) -> str:
    return "" if tool == "doctor" else tool_parser(tool).format_help()


def tool_parser(tool: str):
    return importlib.import_module(TOOLS[tool][0])._parser()


def file_commands(path: Path) -> list[Command]:
    """The commands in the first comment of a recipe, or the docstring of an example."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yml":
        text = re.sub(r"^# ?", "", "".join(re.findall(r"^#.*\n", text, re.MULTILINE)), flags=re.M)
    else:
        text = text.split('"""')[1]
    return [Command(str(path.relative_to(ROOT)), line) for line in _command_lines(text)]


def all_commands() -> list[Command]:
    return [
        *(command for name in DOCUMENTS for command in document_commands(name)),
        *(command for name in DOCUMENTS for command in prose_commands(name)),
        *(command for tool in TOOLS for command in help_commands(tool)),
        *(command for path in (ROOT / "configs").rglob("*.yml") for command in file_commands(path)),
        *(command for path in (ROOT / "examples").glob("*.py") for command in file_commands(path)),
    ]


def _command_lines(text: str) -> list[str]:
    """Lines that begin with a program; `\\` joins lines, a remark in (...) is no part of them."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        head = re.sub(r"^\s*(?:examples?:|train:|test:)?\s*", "", line, flags=re.IGNORECASE)
        if re.match(rf"{PROGRAM}\s+[\w./-]", head):
            found.append(" ".join(re.sub(r"\s{2,}\(.*\)$", "", head).split()))
    return found
