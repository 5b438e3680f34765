"""The code blocks of the documents, and how each is tested.

A comment in front of a block says how; a block without one is run, or loaded, in the default suite:

    <!-- slow -->               run with `-m slow`, at its place among the blocks of its page
    <!-- not run: REASON -->    its programs and flags are checked alone
    <!-- file: NAME -->         yaml: a file that the page's other blocks use
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "data/README.md",
    "scripts/bench/README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
)
MARK = re.compile(r"^<!-- (slow|not run|file)(?:: (.+?))? -->$")
LANGUAGES = ("python", "bash", "yaml", "text")
CODE = LANGUAGES[:3]  # text: layouts of folders and what programs print


@dataclass(frozen=True)
class Block:
    """A fenced block: the first line of its content, and the comment in front of it."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def run_by(self) -> str:
        """`default`, `slow`, `parsed`, or nothing for what is no code."""
        if self.language not in CODE:
            return ""
        return {"slow": "slow", "not run": "parsed"}.get(self.mark, "default")


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """All fenced blocks of a document, in order."""
    lines = (text or (ROOT / page).read_text(encoding="utf-8")).splitlines()
    found, begin = [], None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        language = lines[begin].strip().strip("`")
        content = textwrap.dedent("\n".join(lines[begin + 1 : number])) + "\n"
        mark = MARK.match(lines[begin - 1].strip()) if begin else None
        found.append(Block(page, begin + 2, language, content, *_parts(mark)))
        begin = None
    return found


def _parts(mark: re.Match[str] | None) -> tuple[str, str]:
    return (mark[1], mark[2] or "") if mark else ("", "")


def all_blocks() -> list[Block]:
    """The blocks of all documents."""
    return [block for page in DOCUMENTS for block in blocks_of(page)]
