"""The documentation's site: made of the sources alone, whole, and readable without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sniper.config.schema import SCHEMA
from sniper.tools.cli import TOOLS
from tests.docs.blocks import ROOT

pytest.importorskip("mkdocs", reason="the documentation's tools are not installed")
pytest.importorskip("material")

from mkdocs.exceptions import PluginError  # noqa: E402

import docs_site  # noqa: E402

PAGES = sorted((ROOT / "docs").rglob("*.md"))
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
FOREIGN = re.compile(
    r"<(?:script|link|img|iframe|source)[^>]*?(?:src|href)=[\"']?(https?:[^\"' >]+)"
)


def links_of(text, page):
    return "".join(docs_site._with_site_links(text, page))


def test_every_page_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r": ([\w/]+\.md)$", text.partition("\nnav:\n")[2], re.MULTILINE)
    assert len(named) == len(set(named))
    made = {"reference/keys.md", "reference/commands.md"}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES}
    assert {name for name in named if not name.startswith("repository/")} == pages | made


def test_links_lead_to_the_site():
    text = "[a](../examples/own_parts.py) [b](faces.md#x) [c](https://a.b/c) [d](#e)"
    page = "repository/examples/own_parts.py" + ".md"
    assert links_of(text, "index.md") == f"[a]({page}) [b](faces.md#x) [c](https://a.b/c) [d](#e)"
    text = "[a](docs/architecture.md) ![b](data/demo/faces.jpg)\n```\n[c](nowhere)\n```\n"
    there = "[a](../architecture.md) ![b](data/demo/faces.jpg)\n```\n[c](nowhere)\n```\n"
    assert links_of(text, "repository/CONTRIBUTING.md") == there
    up = links_of("[a](../../data/README.md)", "reference/api.md")
    assert up == "[a](../repository/data/README.md)"


def test_links_to_what_the_site_lacks_are_refused():
    with pytest.raises(PluginError, match="setup.py"):
        links_of("[a](../setup.py)", "index.md")


def test_the_reference_has_every_key_with_its_default():
    page = docs_site.keys_page()
    for key in SCHEMA.values():
        assert f"`{key.path}`" in page, key.path
    assert "### `TRAIN.CHIP_SIZE` { #TRAIN.CHIP_SIZE }" in page and "default `512`" in page
    assert "&lt;prefix&gt;" in page and "<prefix>" not in page


def test_the_reference_has_every_command():
    page = docs_site.commands_page()
    for name in TOOLS:
        assert f"## `sniper {name}`" in page
    assert page.count("usage: ") == len(TOOLS)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.stem)
def test_pictures_are_there_and_are_described(path):
    for words, name in IMAGE.findall(path.read_text(encoding="utf-8")):
        assert len(words.split()) > 3, f"{name}: what does it show?"
        assert (path.parent / name).is_file(), name


@pytest.mark.slow
def test_it_builds_without_mxnet_and_needs_no_server(tmp_path):
    code = (
        "import sys; sys.modules['mxnet'] = None; from mkdocs.__main__ import cli; "
        f"cli(['build', '--strict', '--quiet', '--site-dir', {str(tmp_path / 'site')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        _readable(page)


def _readable(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not FOREIGN.findall(text), page
    assert '<html lang="en"' in text
    assert not re.findall(r"<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", text), page
    content = text.partition('<article class="md-content__inner')[2]
    assert content.count("<h1") == 1 or page.stem == "404", page


def test_the_site_asks_no_other_server():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config["theme"]["font"] is False and config["strict"]
    assert config["extra"]["polyfills"] == ["javascripts/iframe-worker.js"]
    assert (ROOT / "docs" / "javascripts" / "iframe-worker.js").is_file()
