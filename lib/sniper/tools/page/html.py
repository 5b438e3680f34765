"""HTML without accidents: every text is escaped, only what this module has made is not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, Union

# What a browser replaces or refuses: controls, halves of surrogate pairs, non-characters.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_CODE = re.compile(
    r"(`[^`]+`|\bsniper [a-z]+-?[a-z]*|--[\w-]+|\b(?:TRAIN|TEST|network|dataset)\.[A-Za-z_]+)"
)
_VOID = frozenset(("br", "img", "input", "link", "meta"))


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = Union[str, int, float, None, Iterable["Child"]]


def escape(text: str) -> Html:
    """The text as HTML that shows it; what is no character becomes U+FFFD."""
    if isinstance(text, Html):
        return text
    text = _NOT_TEXT.sub("\ufffd", text)
    return Html("".join(_ESCAPES.get(letter, letter) for letter in text))


def join(*children: Child) -> Html:
    """All children one after the other; None is nothing."""
    return Html("".join(_parts(children)))


def tag(name: str, *children: Child, **attributes: Any) -> Html:
    """An element.

    Args:
        name: of the element.
        children: texts, which are escaped, elements, numbers, or sequences of these.
        attributes: `class_` stands for class, `aria_label` for aria-label; True gives a bare
            attribute, None and False none.
    """
    text = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(*children)}</{name}>")


def name(text: str) -> Html:
    """A name that comes from data: its direction of writing does not spill over."""
    return tag("bdi", text)


def code(text: str) -> Html:
    """A command or file."""
    return tag("code", text)


def prose(text: str) -> Html:
    """A sentence whose commands, flags and keys are set apart: `sniper x`, --set, TRAIN.lr."""
    parts = _CODE.split(text)
    return join(*(code(part.strip("`")) if place % 2 else part for place, part in enumerate(parts)))


def json_block(identity: str, content: object) -> Html:
    """Data for the script: a block that no browser runs, and that no text in it can end."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return tag("script", Html(text), type="application/json", id=identity)


def document(title: str, body: Html) -> str:
    """The page around its body: styles and script inside, and a policy that allows nothing else."""
    style, script = _asset("style.css"), _asset("script.js")
    # By hashes: if anything of the data got through as HTML, it still could not run.
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(style)),
    )
    page = join(tag("head", head), tag("body", body, tag("script", Html(script))))
    return f"<!DOCTYPE html>\n{tag('html', page, lang='en')}\n"


def _parts(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            yield escape(child)
        elif isinstance(child, (int, float)):
            yield escape(str(child))
        else:
            yield from _parts(child)


def _asset(file_name: str) -> str:
    return files("sniper.tools.page").joinpath(file_name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
