"""Hooks of MkDocs (mkdocs.yml): pages made when the site is built, and links that leave docs/.

Keys, commands and examples are read from the code each time, so that no copy can go stale. Nothing
here imports MXNet.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))

from sniper.config.kinds import LEGACY, NO_EFFECT, Key  # noqa: E402 (needs the line above)
from sniper.config.load import plain  # noqa: E402
from sniper.config.schema import SCHEMA  # noqa: E402
from sniper.tools.cli import TOOLS  # noqa: E402
from sniper.tools.cli import main as run_tool  # noqa: E402

# What the pages link to and show beside docs/, by the place that it has on the site.
OUTSIDE = "repository"
SHOWN = (
    "*.md", "data/README.md", "scripts/bench/README.md", "examples/*.py",
    "data/demo/*.jpg", "data/demo/*.png",
)  # fmt: skip
UNSEARCHED = ("README.md", "CHANGELOG.md", "scripts/bench/README.md")  # long, or said elsewhere
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?(?:\s+\"[^\"]*\")?\))")
FENCE = re.compile(r"^\s*(?:```|~~~)")
SECTIONS = {
    "": "The run",
    "network": "network: the network",
    "dataset": "dataset: the data",
    "TRAIN": "TRAIN: training",
    "TEST": "TEST: detection and evaluation",
    "default": "default: several processes",
}
STATUS = {NO_EFFECT: "Not used here: who changes it is told.", LEGACY: "Of 2018, never read."}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and what the pages show from outside docs/."""
    pages = {
        "reference/keys.md": keys_page(),
        "reference/commands.md": commands_page(),
    }
    for path in outside_files():
        name = f"{OUTSIDE}/{path.as_posix()}"
        if path.suffix == ".py":
            pages[f"{name}.md"] = source_page(path)
        elif path.suffix == ".md":
            pages[name] = (ROOT / path).read_text(encoding="utf-8")
        else:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the repository's page needs them become those of the site.

    Raises:
        PluginError: a link to a file that is not there, or that the site does not hold.
    """
    if page.file.src_uri.removeprefix(f"{OUTSIDE}/") in UNSEARCHED:
        page.meta["search"] = {"exclude": True}
    return "".join(_with_site_links(markdown, page.file.src_uri))


def _with_site_links(markdown: str, page: str) -> Iterator[str]:
    fenced = False
    for line in markdown.splitlines(keepends=True):
        fenced ^= bool(FENCE.match(line))
        yield line if fenced else LINK.sub(lambda match: _site_link(match, page), line)


def _site_link(match: re.Match[str], page: str) -> str:
    place = _in_repository(page)
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match[2]))
    name = _on_site(target)
    if name is None:
        raise PluginError(f"{place}: a link to {match[2]}, which the site does not have")
    return f"{match[1]}{posixpath.relpath(name, posixpath.dirname(page) or '.')}{match[3]}"


def _in_repository(page: str) -> str:
    """The file that a page of the site is made of."""
    outside = f"{OUTSIDE}/"
    if not page.startswith(outside):
        return f"docs/{page}"
    return re.sub(r"\.py\.md$", ".py", page[len(outside) :])


def _on_site(target: str) -> str | None:
    """The page or picture of a file of the repository; None: the site has none."""
    if target.startswith("docs/"):
        return target[len("docs/") :]
    if target.startswith(".."):
        return None
    if Path(target) not in outside_files():
        return None
    return f"{OUTSIDE}/{target}" + (".md" if target.endswith(".py") else "")


def on_post_build(config: MkDocsConfig) -> None:
    """Pages come from the sources alone: whoever has no MXNet can build them.

    Raises:
        PluginError: something has imported MXNet.
    """
    if sys.modules.get("mxnet") is not None:
        raise PluginError("the site was built with MXNet imported: --help must work without it")


def outside_files() -> list[Path]:
    """Files beside docs/ that the site shows, relative to the root."""
    return sorted(path.relative_to(ROOT) for name in SHOWN for path in ROOT.glob(name))


def keys_page() -> str:
    """Every key of the configuration, from the schema that checks the files."""
    lines = [
        "# Configuration keys",
        "",
        f"All {len(SCHEMA)} keys of a recipe, as `sniper print-config --doc` prints them: type,"
        " default, and what the key does. `sniper print-config --cfg my.yml` shows the values that"
        " a run would use; `--set KEY VALUE` changes one for a run.",
        "",
    ]
    live = [key for key in SCHEMA.values() if key.status != LEGACY]
    for section, title in SECTIONS.items():
        lines += [f"## {title}", ""]
        for key in live:
            if key.path.partition(".")[0] == section or (not section and "." not in key.path):
                lines += _key_lines(key)
    lines += ["## Keys of 2018 that nothing read", "", "They load, and are ignored.", ""]
    lines += [f"* `{key.path}`: {key.doc}" for key in SCHEMA.values() if key.status == LEGACY]
    return "\n".join(lines) + "\n"


def _key_lines(key: Key) -> list[str]:
    note = f" *{STATUS[key.status]}*" if key.status in STATUS else ""
    default = repr(plain(key.default)).replace("`", "'")
    return [
        f"### `{key.path}` {{ #{key.path} }}",
        "",
        f"{_prose(key.doc)}{note}",
        "",
        f":   {key.describe()}; default `{default}`"[4:],
        "",
    ]


def _prose(text: str) -> str:
    """Text of the program as Markdown: what could be markup is kept as it is."""
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text, quote=False))


def commands_page() -> str:
    """The help of every command, as it prints it."""
    lines = [
        "# Commands",
        "",
        "What `--help` prints. `main_train.py`, `main_test.py` and `demo.py` are `sniper train`,"
        " `sniper test` and `sniper demo` for a checkout.",
        "",
        "Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration, 3 wrong data, 130"
        " interrupted.",
        "",
    ]
    lines += [f"* [`sniper {name}`](#{name}): {line}" for name, (_, line) in TOOLS.items()]
    for name in TOOLS:
        lines += ["", f"## `sniper {name}` {{ #{name} }}", "", "```text", help_of(name), "```"]
    return "\n".join(lines) + "\n"


def help_of(name: str) -> str:
    """What `sniper NAME --help` prints in a terminal of 80 columns."""
    text = io.StringIO()
    settings = {"COLUMNS": "80", "NO_COLOR": "1"}
    with mock.patch.dict(os.environ, settings), contextlib.redirect_stdout(text):
        run_tool([name, "--help"])
    return text.getvalue().strip()


def source_page(path: Path) -> str:
    """A page with one of the example programs."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"# {path.name}\n\n```python\n{text}```\n"
