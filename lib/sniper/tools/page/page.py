"""The whole page: all sections, and pictures as far as the size allows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sniper
from sniper.config import dump_config
from sniper.errors import ConfigError, DataError
from sniper.progress import Progress
from sniper.tools.page.chip_section import (
    chip_section,
    example_sheet,
    examples,
    sheet_legend,
)
from sniper.tools.page.data_section import data_section, size_section
from sniper.tools.page.error_section import error_section
from sniper.tools.page.html import Child, Html, code, document, join, name, tag
from sniper.tools.page.inputs import Missing, PageInputs, Results
from sniper.tools.page.pictures import Thumbnail, size_text, thumbnail
from sniper.tools.page.result_section import headline, result_section
from sniper.tools.page.tables import count, numbers, section
from sniper.tools.page.training_section import training_section
from sniper.tools.page.worst_section import Tile, data_block, tiles, worst_section

logger = logging.getLogger(__name__)

_NAVIGATION = (
    *(("overview", "Overview"), ("data", "Data"), ("sizes", "Sizes"), ("chips", "Chips")),
    *(("training", "Training"), ("results", "Results"), ("errors", "Errors")),
    *(("worst", "Worst images"), ("about", "About")),
)
_SHEETS, _SHEET_PX, _SHEET_SHARE = 3, 640, 0.3
# Sides of the pictures of tiles to choose from, and how many are tried to learn what they take.
_TILE_PX, _TRIED = (560, 420, 320, 240, 180), 12
# What the page's own text may grow by when the tiles are told.
_SPARE = 4000


@dataclass(frozen=True)
class Picked:
    """The tiles of the page.

    Attributes:
        shown: worst first.
        pictures: of each; None where the image cannot be read.
        notes: what was left out, a sentence each.
    """

    shown: list[Tile]
    pictures: list[Thumbnail | None]
    notes: list[str]


def build(inputs: PageInputs, max_size: int) -> str:
    """The page.

    Args:
        inputs: what it shows.
        max_size: bytes that it may have.

    Raises:
        ConfigError: it is larger without any picture.
    """
    fixed = _Fixed.of(inputs)
    bare = len(_render(inputs, fixed, Html(), Picked([], [], [])).encode("utf-8")) + _SPARE
    if bare > max_size:
        raise ConfigError(
            "the page is larger without any picture",
            where="--max-size",
            got=size_text(max_size),
            expected=f"at least {size_text(bare + 1000)}",
        )
    left = max_size - bare
    sheets = _sheets(inputs, int(left * _SHEET_SHARE))
    left -= len(sheets.encode("utf-8"))
    picked = Picked([], [], [])
    if not isinstance(inputs.results, Missing):
        picked = _pick(inputs.results, left)
    return _render(inputs, fixed, sheets, picked)


@dataclass(frozen=True)
class _Fixed:
    """The sections whose size does not depend on pictures, before the chips and after them."""

    before: list[Html]
    after: list[Html]
    about: Html

    @classmethod
    def of(cls, inputs: PageInputs) -> _Fixed:
        return cls(
            [_overview(inputs), data_section(inputs), size_section(inputs)],
            [training_section(inputs), result_section(inputs), error_section(inputs)],
            _about(inputs),
        )


def _render(inputs: PageInputs, fixed: _Fixed, sheets: Html, picked: Picked) -> str:
    data = Html()
    if not isinstance(inputs.results, Missing):
        data = data_block(inputs.results, picked.shown, picked.pictures)
    sections = [
        *fixed.before,
        chip_section(inputs, sheets),
        *fixed.after,
        worst_section(inputs, len(picked.shown), picked.notes, data),
        fixed.about,
    ]
    title = f"{inputs.cfg.name}: SNIPER report"
    links = [tag("li", tag("a", text, href=f"#{key}")) for key, text in _NAVIGATION]
    return document(
        title,
        join(
            tag("a", "To the content", href="#main", class_="skip"),
            tag("header", tag("h1", name(inputs.cfg.name)), tag("p", _subtitle(inputs))),
            tag("nav", tag("ul", links), aria_label="Sections"),
            tag("main", sections, id="main", tabindex=-1),
            tag("footer", tag("p", f"Made by sniper report {sniper.__version__}.")),
        ),
    )


def _subtitle(inputs: PageInputs) -> Html:
    dataset = inputs.cfg.dataset
    made = time.strftime("%Y-%m-%d %H:%M")
    return join(
        *("trained on ", name(dataset.image_set), ", tested on ", name(dataset.test_image_set)),
        f"; report of {made}",
    )


def _overview(inputs: PageInputs) -> Html:
    """The figures that are read first, what there is and what to do next."""
    figures: list[tuple[str, Child]] = []
    advice: list[Child] = []
    if not isinstance(inputs.results, Missing):
        figures += headline(inputs.results)
        advice += _costly(inputs.results)
    if not isinstance(inputs.training, Missing):
        account, chips = inputs.training.account, inputs.training.numbers
        share = account.trained / max(account.read, 1)
        figures.append(("objects trained", f"{share:.1%} of {account.read}"))
        figures.append(("chips of an epoch", count(chips.chips).text))
    if not isinstance(inputs.log, Missing):
        figures.append(("updates trained", f"{inputs.log.last_update}"))
    for part in (inputs.training, inputs.log, inputs.results):
        if isinstance(part, Missing):
            advice.append([part.sentence, " ", code(part.command) if part.command else None])
    steps = None
    if advice:
        steps = join(tag("h3", "What to do next"), tag("ul", [tag("li", one) for one in advice]))
    return section("overview", "Overview", numbers(figures), steps)


def _costly(results: Results) -> list[Child]:
    """The causes that cost most, with a link to what to do."""
    causes = sorted(results.study.effects.causes.items(), key=lambda item: -item[1].gain)
    return [
        [
            f"{key}: {cause.count} errors cost {100 * cause.gain:.1f} points of AP50; ",
            tag("a", f"what to do about \u201c{key}\u201d", href="#errors"),
        ]
        for key, cause in causes[:2]
        if cause.gain >= 0.01
    ]


def _about(inputs: PageInputs) -> Html:
    """Where the figures come from."""
    facts: list[tuple[str, Child]] = [("configuration", name(inputs.cfg.name))]
    if not isinstance(inputs.results, Missing):
        weights = inputs.results.facts.get("weights_sha256")
        if isinstance(weights, str):
            facts.append(("SHA-256 of the weights", code(weights[:16])))
        evaluator = getattr(inputs.results.report, "evaluator", "")
        if evaluator:
            facts.append(("evaluated by", str(evaluator)))
    config = tag(
        "details",
        tag("summary", "The resolved configuration"),
        tag("pre", dump_config(inputs.cfg)),
    )
    again = tag("p", "This page again: ", code(inputs.command("report")))
    return section("about", "About this page", numbers(facts), again, config)


def _sheets(inputs: PageInputs, limit: int) -> Html:
    """Examples of chips, as many as fit."""
    part = inputs.training
    if isinstance(part, Missing):
        return Html()
    sheets: list[Html] = []
    notes = []
    size = 0
    for item in examples(part, _SHEETS):
        try:
            sheet = example_sheet(part, item, thumbnail(item.record, _SHEET_PX))
        except DataError as error:
            logger.warning("an example of chips is left out: %s", error)
            notes.append("An image could not be read.")
            continue
        size += len(sheet.encode("utf-8"))
        if size > limit:
            notes.append("Further examples would make the page larger than --max-size.")
            break
        sheets.append(sheet)
    heading = tag("h3", "Examples")
    told = [tag("p", note, class_="note") for note in dict.fromkeys(notes)]
    if not sheets:
        return join(heading, told) if told else Html()
    return join(heading, sheet_legend(), sheets, told)


def _pick(results: Results, limit: int) -> Picked:
    """The worst images with pictures as large as the size allows; then fewer of them."""
    every = tiles(results)
    sizes = [len(data_block(results, [tile], [None]).encode("utf-8")) for tile in every]
    side = _side(every, sizes, limit)
    shown: list[Tile] = []
    pictures: list[Thumbnail | None] = []
    unread = 0
    progress = Progress("pictures of the worst images", len(every))
    for tile, size in zip(every, sizes):
        picture = _picture(tile, side)
        limit -= size + (0 if picture is None else len(picture.uri))
        if limit < 0:
            break
        unread += picture is None
        shown.append(tile)
        pictures.append(picture)
        progress.tell(len(shown))
    return Picked(shown, pictures, list(_notes(every, shown, unread, side)))


def _notes(every: Sequence[Tile], shown: Sequence[Tile], unread: int, side: int) -> list[str]:
    notes = []
    if len(shown) < len(every):
        notes.append(
            f"{len(every) - len(shown)} more of the {len(every)} images would make the page larger "
            "than --max-size allows."
        )
    if unread:
        notes.append(f"{unread} images cannot be read: their tiles have no picture.")
    if any(max(tile.record.width, tile.record.height) > side for tile in shown):
        notes.append(f"Pictures are at most {side} px long here, to keep the page small.")
    left_out = sum(tile.left_out for tile in shown)
    if left_out:
        notes.append(f"{left_out} detections of very low score are not drawn.")
    return notes


def _side(every: Sequence[Tile], sizes: Sequence[int], limit: int) -> int:
    """The largest side at which all pictures fit, judged by some of them; else the smallest."""
    step = max(1, len(every) // _TRIED)
    tried = every[::step][:_TRIED]
    room = limit - sum(sizes)
    for side in _TILE_PX[:-1]:
        pictures = [_picture(tile, side) for tile in tried]
        lengths = [len(picture.uri) for picture in pictures if picture is not None]
        # A tenth more than the mean of some.
        if not lengths or 1.1 * sum(lengths) / len(lengths) * len(every) <= room:
            return side
    return _TILE_PX[-1]


def _picture(tile: Tile, side: int) -> Thumbnail | None:
    try:
        return thumbnail(tile.record, side)
    except DataError as error:
        logger.debug("no picture: %s", error)
        return None
