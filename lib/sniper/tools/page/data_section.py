"""The page's sections of a data set: account, classes, sizes against the levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sniper.chips.measures import TRAINED
from sniper.data import Dataset
from sniper.data.account import CROWD, DIFFICULT, IGNORED, LEFT_OUT
from sniper.runs.resolve import chip_settings
from sniper.runs.start_up_report import level_name, range_text
from sniper.tools.page.axes import Axis, count_axis, size_axis
from sniper.tools.page.charts import Mark, Series, bar_chart, colour, range_chart
from sniper.tools.page.html import Html, code, join, name, prose, tag
from sniper.tools.page.inputs import Missing, PageInputs, Results, TrainingPart
from sniper.tools.page.tables import Row, bar, count, missing, percent, section, table

_BINS_PER_OCTAVE = 2
_PERCENTS = (5, 50, 95)
# What a reader does about annotations that no reader gave to the set.
_READ_FIX = "sniper check-data names each of them"
# Nothing is wrong with these.
_AS_MEANT = (CROWD, DIFFICULT, IGNORED)


def data_section(inputs: PageInputs) -> Html:
    """What there is to learn from, and what becomes of it."""
    part, parts = inputs.training, []
    sets = [] if isinstance(part, Missing) else list(part.sets)
    known = {dataset.name for dataset in sets}
    if not isinstance(inputs.test_set, Missing) and inputs.test_set.name not in known:
        sets.append(inputs.test_set)
    if sets:
        parts.append(_sets(sets))
    if isinstance(part, Missing):
        parts.append(missing(part.sentence, part.command))
    else:
        parts += [_account(part), _classes(part, inputs)]
    if isinstance(inputs.test_set, Missing):
        parts.append(missing(inputs.test_set.sentence, inputs.test_set.command))
    looked = "Images are counted here, not opened: this looks at the files, too:"
    parts.append(tag("p", looked, " ", code(inputs.command("check-data")), class_="note"))
    return section("data", "Data", parts)


def _sets(sets: Sequence[Dataset]) -> Html:
    rows: list[Row] = []
    for dataset in sets:
        sides = np.array([(r.width, r.height) for r in dataset.records]).reshape(-1, 2)
        median = "-"
        if len(sides):
            median = "{:.0f} \u00d7 {:.0f}".format(*np.median(sides, axis=0).tolist())
        images, objects = len(dataset.records), dataset.num_objects
        rows.append(
            [
                name(dataset.name),
                count(images),
                count(sum(record.num_gt == 0 for record in dataset.records)),
                count(objects),
                f"{objects / max(images, 1):.1f}",
                count(dataset.num_ignored),
                count(len(dataset.class_names) - 1),
                median,
            ]
        )
    head = (
        *("set", "images", "without objects", "objects", "per image"),
        *("crowd or difficult", "classes", "median px"),
    )
    return table("Image sets", head, rows)


def _account(part: TrainingPart) -> Html:
    account = part.account
    total = max(account.read, 1)
    fixes = {fate.name: fate.fix for fate in account.fates}
    fixes |= {entry.name: _READ_FIX for entry in LEFT_OUT if entry not in _AS_MEANT}
    rows: list[Row] = [["read", count(account.read), percent(1.0), ""]]
    rows.append(_account_row("trained", account.trained, total))
    advice = []
    for entry, number in account.left_out.items():
        rows.append(_account_row(f"left out: {entry.text}", number, total, 1))
        if fixes.get(entry.name):
            advice.append(join(tag("dt", entry.text), tag("dd", prose(fixes[entry.name]))))
    caption = "Account of the annotations of the training sets"
    lines = [table(caption, ("annotations", "number", "%", "share"), rows)]
    if advice:
        heading = tag("h3", "What to do about those that are left out")
        lines.append(join(heading, tag("dl", advice, class_="remedies")))
    if account.remarks:
        remarks = ", ".join(f"{number} {entry.text}" for entry, number in account.remarks.items())
        lines.append(tag("p", f"Of the {account.objects} objects {remarks}.", class_="note"))
    return join(lines)


def _account_row(text: str, number: int, total: int, shade: int = 0) -> Row:
    return [text, count(number), percent(number / total), bar(number / total, shade)]


def _classes(part: TrainingPart, inputs: PageInputs) -> Html:
    names = part.data.class_names
    trained = _objects_of(names, part.sets)
    test = inputs.test_set
    tested = None
    if not isinstance(test, Missing) and test.has_annotations:
        tested = _objects_of(names, [test])
    largest = max(int(trained.max(initial=1)), 1)
    rows: list[Row] = []
    for index in np.argsort(-trained[1:], kind="stable").tolist():
        number = int(trained[1 + index])
        last = [] if tested is None else [count(int(tested[1 + index]))]
        rows.append([name(names[1 + index]), count(number), bar(number / largest), *last])
    head = ["class", "objects in training", "share of the most frequent"]
    head += [] if tested is None else ["objects in the test set"]
    none = int((trained[1:] == 0).sum())
    note = None
    if none:
        note = tag("p", f"{none} classes have no object to learn from.", class_="warning")
    rest = "Above are the most frequent classes."
    return join(note, table("Objects of the classes", head, rows, sortable=True, rest=rest))


def _objects_of(names: Sequence[str], sets: Sequence[Dataset]) -> np.ndarray:
    """(C,) objects of each class, by its name."""
    place = {text: index for index, text in enumerate(names)}
    totals = np.zeros(len(names), np.int64)
    for dataset in sets:
        classes = [record.gt_classes for record in dataset.records]
        counts = np.bincount(
            np.concatenate([np.zeros(0, np.int32), *classes]), minlength=len(dataset.class_names)
        )
        for text, number in zip(dataset.class_names, counts.tolist()):
            if text in place:
                totals[place[text]] += number
    return totals


def size_section(inputs: PageInputs) -> Html:
    """Sizes of the objects against the levels of training and test."""
    part = inputs.training
    if isinstance(part, Missing):
        return section("sizes", "Object sizes and levels", missing(part.sentence, part.command))
    sides = np.maximum(part.account.levels.side, 1)
    axis = size_axis("square root of the area, image px", sides.min(), sides.max())
    ranges = [_range_chart(inputs, part, axis)]
    if not isinstance(inputs.results, Missing):
        ranges.append(_test_range_chart(inputs.results, axis))
    stack = tag("div", ranges, class_="stack")
    charts = [_size_chart(sides, part, axis), stack, _input_chart(part)]
    explained = (
        "A network learns objects well that are neither tiny nor larger than a chip when it sees "
        "them. Each level of the pyramid shows the image at another size and trains the objects of "
        "its valid range; where ranges leave a gap, objects are trained nowhere."
    )
    advice = tag(
        "p", "Levels for other sizes are proposed by ", code(inputs.command("suggest-scales"))
    )
    grid = tag("div", charts, class_="charts")
    return section("sizes", "Object sizes and levels", tag("p", explained), grid, advice)


def _size_chart(sides: np.ndarray, part: TrainingPart, axis: Axis) -> Html:
    edges = _edges(axis.low, axis.high)
    series = []
    for place, fate in enumerate(part.account.fates):
        if len(fate.boxes):
            values = np.histogram(sides[fate.boxes], edges)[0].astype(float)
            text = "trained" if fate.name == TRAINED else f"not trained: {fate.text}"
            series.append(Series(f"{text} ({len(fate.boxes)})", values, colour(place)))
    top = sum(one.values for one in series)
    few, middle, many = np.percentile(sides, _PERCENTS).tolist()
    return bar_chart(
        "Objects of the training sets by size",
        edges,
        series,
        axis,
        count_axis("objects", float(np.max(top, initial=1))),
        about=f"5 % of the objects are below {few:.0f} px, half below {middle:.0f} px, 95 % below "
        f"{many:.0f} px.",
        marks=[
            Mark(at, f"{percent} % below {at:.0f}")
            for percent, at in zip(_PERCENTS, (few, middle, many))
        ],
    )


def _range_chart(inputs: PageInputs, part: TrainingPart, axis: Axis) -> Html:
    settings = chip_settings(inputs.cfg)
    shares = part.measures.levels.in_range.mean(axis=0).tolist()
    names = [
        f"level {level}, {level_name(settings.scales, level)}: "
        f"{range_text(settings.size_ranges, level)} px, {shares[level]:.0%} of the objects"
        for level in range(len(settings.scales))
    ]
    ranges = [(float(low), float(high)) for low, high in settings.size_ranges]
    # As in chip generation the last level has no upper end.
    ranges[-1] = (ranges[-1][0], -1.0)
    return range_chart(
        "Valid ranges of the training levels", ranges, names, axis, about="; ".join(names)
    )


def _test_range_chart(results: Results, axis: Axis) -> Html:
    names = [
        f"level {place}, {level.name}: {level.sizes}" for place, level in enumerate(results.levels)
    ]
    ranges = [(level.low, level.high) for level in results.levels]
    title = f"Valid ranges of the test levels, mode {results.mode}"
    return range_chart(title, ranges, names, axis, about="; ".join(names))


def _input_chart(part: TrainingPart) -> Html:
    """Sizes at the network's input."""
    measures = part.measures
    pairs = measures.pairs
    level = measures.epoch.chips.level[pairs.chip[pairs.survives]]
    boxes = measures.trained_boxes_chip
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1))
    axis = size_axis("px at the network's input", sides.min(initial=8), sides.max(initial=64))
    edges = _edges(axis.low, axis.high)
    series = [
        Series(
            f"level {row.level} ({row.scale})",
            np.histogram(sides[level == row.level], edges)[0].astype(float),
            colour(row.level),
        )
        for row in part.numbers.levels
    ]
    top = sum(one.values for one in series)
    return bar_chart(
        "Trained objects at the network's input",
        edges,
        series,
        axis,
        count_axis("objects in chips of an epoch", float(np.max(top, initial=1))),
        about=f"The middle half is {np.percentile(sides, 25):.0f} to "
        f"{np.percentile(sides, 75):.0f} px large."
        if len(sides)
        else "There are none.",
    )


def _edges(low: float, high: float) -> np.ndarray:
    octaves = np.log2(high / low)
    return low * 2.0 ** (np.arange(round(octaves * _BINS_PER_OCTAVE) + 1) / _BINS_PER_OCTAVE)
