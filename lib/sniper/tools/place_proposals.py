"""`sniper place-proposals`: checks proposal files against a recipe's sets, puts them in place."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sniper.errors import DataError
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_overwrite_flag,
    command_parser,
)
from sniper.tools.cli import run_main
from sniper.tools.weights.unpack import is_archive, unpack

if TYPE_CHECKING:
    from sniper.data import Dataset
    from sniper.data.proposals import ProposalSet

NPZ, PICKLE = ".npz", ".pkl"
_DESCRIPTION = """\
Takes proposal files of the recipe's training sets: <NAME>_rpn.npz of this version, <NAME>_rpn.pkl
of 2018 (read by a reader that knows arrays and nothing else), or an archive of such files. Each is
compared with the images and annotations of its set and written to proposal_path as NPZ.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when the proposals of at least one set are in place, 2 for a bad setting, 3 for files that
        are missing, damaged, unsafe or of other sets.
    """
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "sniper place-proposals",
        _DESCRIPTION,
        epilog="example: sniper place-proposals proposals.tar.gz --cfg sniper_res101_e2e",
    )
    parser.add_argument("source", type=Path, metavar="FILE", help=".npz, .pkl or an archive")
    add_overwrite_flag(parser)
    add_cfg_and_set(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config
    from sniper.data.proposals import save_proposals
    from sniper.runs.datasets import open_dataset, proposal_file
    from sniper.runs.resolve import data_source, training_sets

    cfg = load_config(args.cfg, args.overrides)
    if not args.source.is_file():
        raise DataError("the file is not there", where=args.source)
    placed = 0
    with tempfile.TemporaryDirectory(prefix="sniper-proposals-") as folder:
        files = _files(args.source, Path(folder))
        for name in training_sets(cfg):
            dataset = open_dataset(data_source(cfg), name)
            proposals = _read(files, dataset)
            if proposals is None:
                print(f"nothing for {dataset.name} in {args.source}")
                continue
            target = proposal_file(cfg.proposal_path, dataset.name)
            if not args.overwrite:
                _check_free(target, proposals)
            save_proposals(target, proposals)
            print(
                f"{target}: {len(proposals.boxes)} proposals of {len(proposals.image_ids)} images"
            )
            placed += 1
    if not placed:
        raise DataError(
            "no file belongs to a training set of the recipe",
            where=args.source,
            got=", ".join(sorted(files)) or f"no {NPZ} or {PICKLE} file",
            expected=f"<NAME>_rpn{NPZ} or <NAME>_rpn{PICKLE} of {cfg.dataset.image_set}",
        )
    return 0


def _files(source: Path, folder: Path) -> dict[str, Path]:
    if not is_archive(source):
        return {source.name: source}
    files: dict[str, Path] = {}
    for path in unpack(source, folder, [NPZ, PICKLE]):
        if path.name in files:
            raise DataError(
                "the archive holds several files for one set",
                where=source,
                got=f"{files[path.name].relative_to(folder)} and {path.relative_to(folder)}",
                fix="unpack it, and give the right one",
            )
        files[path.name] = path
    return files


def _read(files: dict[str, Path], dataset: Dataset) -> ProposalSet | None:
    """The proposals of a set, checked; None where no file has its name."""
    from sniper.data.legacy_proposals import legacy_names, load_legacy_proposals
    from sniper.data.proposals import load_proposals

    new = files.get(f"{dataset.name}_rpn{NPZ}")
    if new is not None:
        return _checked(load_proposals(new), dataset, new)
    start = f"{dataset.name}_rpn"
    others = [name for name in files if name.startswith(start) and name.endswith(PICKLE)]
    legacy = [name for name in (*legacy_names(dataset.name), *others) if name in files]
    return load_legacy_proposals(files[legacy[0]], dataset) if legacy else None


def _checked(proposals: ProposalSet, dataset: Dataset, path: Path) -> ProposalSet:
    image_ids = {record.image_id for record in dataset.records}
    matching = sum(image_id in proposals for image_id in image_ids)
    if proposals.set_name != dataset.name or matching < len(image_ids):
        raise DataError(
            "the proposals are those of another set",
            where=path,
            got=f"set {proposals.set_name!r}, {matching} of {len(image_ids)} image ids match",
            expected=f"set {dataset.name!r}",
        )
    return proposals


def _check_free(target: Path, proposals: ProposalSet) -> None:
    """Raises DataError when other proposals are there already."""
    from sniper.data.proposals import load_proposals

    if not target.exists():
        return
    present = load_proposals(target)
    same = all(
        np.array_equal(getattr(present, name), getattr(proposals, name))
        for name in ("image_ids", "offsets", "boxes", "scores")
    )
    if not same:
        raise DataError(
            "other proposals are there already",
            where=target,
            fix="move them away, or replace them with --overwrite",
        )
