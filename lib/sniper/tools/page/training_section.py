"""The page's section of the training: its curves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sniper.tools.page.axes import LOG10, Axis, count_axis, tick_text
from sniper.tools.page.charts import Mark, Series, line_chart
from sniper.tools.page.html import Html, tag
from sniper.tools.page.inputs import Missing, PageInputs
from sniper.tools.page.tables import missing, numbers, section
from sniper.vis.curves import Curve, RunCurves, running_mean

# With fewer points a mean would hide more than it shows; more lines of epochs would cover curves.
_FEW_POINTS, _MOST_EPOCHS = 30, 12
_WIDE_RATES = 20
# Axes begin at 0 where the smallest value is below this share of the largest.
_FROM_ZERO = 0.7


def training_section(inputs: PageInputs) -> Html:
    """Losses, validation, learning rate and speed over the updates."""
    run = inputs.log
    if isinstance(run, Missing):
        return section("training", "Training", missing(run.sentence, run.command))
    losses = {key: curve for key, curve in run.metrics.items() if "loss" in key.lower()}
    others = {key: curve for key, curve in run.metrics.items() if key not in losses}
    charts = []
    if run.validation:
        charts.append(_validation(run.validation, run))
    charts += [_metric(key, curve, run) for key, curve in {**losses, **others}.items()]
    if run.lr is not None:
        charts.append(_rate(run.lr, run))
    if run.speed is not None:
        charts.append(_metric("chips per second", run.speed, run))
    facts = [("updates", f"{run.last_update}"), ("epochs", f"{len(run.epoch_ends) + 1}")]
    if run.speed is not None:
        facts.append(("chips per second, median", f"{np.median(run.speed.values):.3g}"))
    facts += [
        (f"best {key} at validation", f"{100 * np.nanmax(curve.values):.1f} %")
        for key, curve in run.validation.items()
        if np.isfinite(curve.values).any()
    ]
    smooth = any(len(curve.values) >= _FEW_POINTS for curve in run.metrics.values())
    about = "Thin lines are what the log says, thick ones its mean over neighbours."
    return section(
        "training",
        "Training",
        numbers(facts),
        tag("p", about, class_="note") if smooth else None,
        tag("div", charts, class_="charts"),
        _not_validated(inputs, run),
    )


def _not_validated(inputs: PageInputs, run: RunCurves) -> Html | None:
    if run.validation:
        return None
    command = f"{inputs.command('train')}{'' if '--set' in inputs.words else ' --set'}"
    return missing(
        "The run has not validated; this does after every epoch:",
        f"{command} TRAIN.VALIDATE_EVERY 1",
    )


def _updates(run: RunCurves) -> Axis:
    return Axis("updates", 0, max(run.last_update, 1))


def _epochs(run: RunCurves) -> list[Mark]:
    ends = run.epoch_ends if len(run.epoch_ends) <= _MOST_EPOCHS else ()
    return [Mark(float(update), "") for update in ends]


def _metric(title: str, curve: Curve, run: RunCurves) -> Html:
    values = curve.values
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    window = 1 if len(values) < _FEW_POINTS else max(3, len(values) // 20)
    series = [Series(title, values, 0)]
    if window > 1:
        smooth = running_mean(curve, window)
        series = [Series("each line of the log", values, 0, faint=True), Series(title, smooth, 0)]
    y_axis = _value_axis(low, high)
    first, last = (float(known[0]), float(known[-1])) if len(known) else (math.nan, math.nan)
    return line_chart(
        title,
        curve.updates,
        series,
        _updates(run),
        y_axis,
        about=f"From {first:.4g} at the beginning to {last:.4g} at the end.",
        marks=_epochs(run),
        digits=4,
    )


def _value_axis(low: float, high: float) -> Axis:
    """From 0, unless all values lie in the upper part of that."""
    room = 0.05 * (high - low)
    start = 0.0 if 0 <= low < _FROM_ZERO * high else low - room
    if high <= start:
        high = start + max(abs(start), 1e-6)
    return Axis("", start, high + room)


def _rate(curve: Curve, run: RunCurves) -> Html:
    values = np.where(curve.values > 0, curve.values, np.nan)
    known = values[np.isfinite(values)]
    high = float(known.max()) if len(known) else 1.0
    low = float(known.min()) if len(known) else 0.0
    wide = low > 0 and high > _WIDE_RATES * low
    axis = Axis("", low, high, LOG10) if wide else Axis("", 0, high * 1.05)
    return line_chart(
        "learning rate",
        curve.updates,
        [Series("learning rate", values, 0)],
        _updates(run),
        axis,
        about=f"At most {tick_text(high)}, {tick_text(float(curve.values[-1]))} at the end.",
        marks=_epochs(run),
        digits=6,
    )


def _validation(curves: Mapping[str, Curve], run: RunCurves) -> Html:
    x = np.unique(np.concatenate([curve.updates for curve in curves.values()]))
    series = []
    for place, (key, curve) in enumerate(curves.items()):
        values = np.full(len(x), np.nan)
        values[np.searchsorted(x, curve.updates)] = 100 * curve.values
        series.append(Series(key, values, place))
    top = max(float(np.nanmax(one.values, initial=1)) for one in series)
    return line_chart(
        "validation",
        x,
        series,
        _updates(run),
        count_axis("%", top),
        about="Average precisions of the validation set in percent.",
        marks=_epochs(run),
        digits=1,
    )
