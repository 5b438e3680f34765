"""`sniper plot-log`: curves of one or several training runs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sniper.errors import DataError
from sniper.tools.arguments import (
    add_out_flag,
    as_positive,
    command_parser,
)
from sniper.tools.cli import run_main
from sniper.vis.curves import Curve, RunCurves, plot_runs
from sniper.vis.figures import save_figure

_DESCRIPTION = """\
Draws the training losses, the learning rate, the speed and the validation results of runs over the
number of updates. The files are those that training writes: <model folder>/<recipe>.jsonl. A run
that was resumed or started again replaces the older lines with the same updates.
"""
_EPILOG = """\
examples:
  sniper plot-log output/sniper_res18_toy/*/train/*.jsonl      (the quickstart)
  sniper plot-log one.jsonl other.jsonl --names "lr 0.01" "lr 0.02" --out curves.png
"""

# What a line tells beside the metrics; older versions wrote the first three only.
_NO_METRICS = frozenset(
    "epoch batch update kind time lr loss_scale skipped chips_per_s data_wait memory_gb "
    "gpu_memory_gb took_s set".split()
)
# Figures of a validation that are drawn: COCO's, Pascal VOC's or ILSVRC's, and those of masks.
_VALIDATION = ("ap", "ap50", "map50", "map70", "mean_ap", "mean_ap50", "masks_ap")
_SHOWN_BROKEN = 3

Line = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the curves; 0, or 3 for files that are no logs."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper plot-log", _DESCRIPTION, _EPILOG)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl", help="logs of runs")
    add_out_flag(parser, "FILE.png", "the picture (default: beside the first log)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="a name for each run")
    parser.add_argument(
        "--smooth",
        type=as_positive,
        metavar="N",
        help="the bold curves are means over N lines; 1: no means (default: by their number)",
    )
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    out = args.out or args.files[0].with_suffix(".png")
    if out.suffix.lower() != ".png":
        parser.error("--out must be a PNG file")
    if args.names and len(args.names) != len(args.files):
        parser.error(f"--names must give {len(args.files)} name(s)")
    if args.smooth is not None and args.smooth < 1:
        parser.error("--smooth must be positive")
    names = args.names or run_names(args.files)
    runs = [read_run(path, name) for path, name in zip(args.files, names)]
    save_figure(plot_runs(runs, _heading(runs), args.smooth), out)
    for run in runs:
        print(f"{run.name}: {_summary(run)}")
    print(f"picture: {out}")
    return 0


def run_names(paths: Sequence[Path]) -> list[str]:
    """File names without ending; with the folders that tell them apart where they are the same."""
    parts = [path.absolute().with_suffix("").parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{index + 1}: {part[-1]}" for index, part in enumerate(parts)]


def read_run(path: Path, name: str) -> RunCurves:
    """The curves of a log file.

    Raises:
        DataError: the file cannot be read, is empty, or is no log of a training run.
    """
    lines = list(_without_replaced(_read_lines(path)))
    train = [line for line in lines if line.get("kind", "train") == "train"]
    if not train:
        raise DataError(
            "the log has no line of training yet",
            where=path,
            fix="the first one comes after 10 batches",
        )
    names = dict.fromkeys(name for line in train for name in line if name not in _NO_METRICS)
    validation = [line for line in lines if line.get("kind") == "validation"]
    return RunCurves(
        name,
        {key: curve for key in names if (curve := _curve(train, key)) is not None},
        lr=_curve(train, "lr"),
        speed=_curve(train, "chips_per_s"),
        validation={
            key: curve for key in _VALIDATION if (curve := _curve(validation, key)) is not None
        },
        epoch_ends=_epoch_ends(train),
    )


def _read_lines(path: Path) -> list[Line]:
    """All lines that are whole; says which are not."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(
            "the log cannot be read",
            where=path,
            got=error.strerror,
            fix="training writes it to <output_path>/<recipe>/<training sets>/<recipe>.jsonl",
        ) from error
    lines, broken = [], []
    for number, text in enumerate(texts, 1):
        if text.strip():
            line = _parse(text)
            lines.append(line) if line else broken.append((number, text))
    if not lines:
        raise DataError(
            "the log is empty" if not broken else "this is no log of a training run",
            where=path,
            got=f"line {broken[0][0]}: {broken[0][1][:60]!r}" if broken else "no lines",
            expected='lines such as {"epoch": 0, "batch": 10, "update": 10, "RPNAcc": 0.78}',
        )
    for number, text in broken[:_SHOWN_BROKEN]:
        print(f"{path}:{number} is broken and left out: {text[:60]!r}", file=sys.stderr)
    if len(broken) > _SHOWN_BROKEN:
        print(f"{path}: {len(broken)} broken lines in all", file=sys.stderr)
    return lines


def _parse(text: str) -> Line | None:
    """The object of a line; None unless it is one with a number of updates."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    known = isinstance(line, dict) and type(line.get("update")) is int and line["update"] >= 0
    return line if known else None


def _without_replaced(lines: Sequence[Line]) -> Iterator[Line]:
    """Leaves out what a resumed or new run has trained again: later lines of a kind count."""
    lowest: dict[object, float] = {}
    kept: list[Line] = []
    for line in reversed(lines):
        kind = line.get("kind", "train")
        # A smaller update later in the file means that the run went back there.
        if line["update"] < min(lowest.get(kind, math.inf), lowest.get("train", math.inf) + 1):
            kept.append(line)
            lowest[kind] = line["update"]
    return reversed(kept)


def _curve(lines: Sequence[Line], key: str) -> Curve | None:
    """The curve of a key; None where no line has a number for it."""
    points = [(line["update"], line[key]) for line in lines if _is_number(line.get(key))]
    if not points:
        return None
    updates, values = zip(*points)
    return Curve(np.array(updates), np.array(values, np.float64))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _epoch_ends(lines: Sequence[Line]) -> list[int]:
    return [
        line["update"]
        for line, following in zip(lines, lines[1:])
        if following.get("epoch") != line.get("epoch")
    ]


def _heading(runs: Sequence[RunCurves]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs"
    return f"{runs[0].name}: {runs[0].last_update} updates"


def _summary(run: RunCurves) -> str:
    metrics = " ".join(f"{name}={curve.values[-1]:.4f}" for name, curve in run.metrics.items())
    best = [f"best {name} {100 * curve.values.max():.1f}" for name, curve in run.validation.items()]
    return ", ".join([f"{run.last_update} updates", metrics, *best])


if __name__ == "__main__":
    sys.exit(main())
