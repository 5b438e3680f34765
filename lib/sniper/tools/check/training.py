"""Does the data fit the configuration: classes, chips of the pyramid, proposals, the loader."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from easydict import EasyDict

from sniper.chips.account import Account, account_of
from sniper.chips.measures import TRAINED
from sniper.chips.sampler import Epoch, make_epoch
from sniper.data import Dataset, append_flipped, load_proposals
from sniper.data.classes import join_classes, lacking_classes, match_set
from sniper.data.legacy_proposals import find_legacy_file, load_legacy_proposals
from sniper.data.problems import ERROR
from sniper.data.record import Record
from sniper.data.super_classes import read_super_classes, super_of
from sniper.errors import ConfigError, DataError, OpsError, SniperError
from sniper.loader.train import TrainLoader
from sniper.runs.datasets import (
    intake_of,
    proposal_file,
    read_training_sets,
    training_account,
)
from sniper.runs.resolve import batch_settings, chip_settings, mines, training_data, with_negatives
from sniper.runs.start_up_report import level_name
from sniper.tools.check.findings import Findings


def check_classes(
    findings: Findings, training: Sequence[Dataset], tested: Sequence[Dataset], cfg: EasyDict
) -> None:
    """Matches the classes of the sets by name, as training and testing do."""
    num_classes = cfg.dataset.NUM_CLASSES
    named = [dataset for dataset in training if len(dataset.class_names) > 1]
    if not named:
        return
    together = "+".join(dataset.name for dataset in named)
    try:
        joined = join_classes(named)
    except DataError as error:
        findings.add_error("classes", together, error)
        return
    for name, lacking in lacking_classes(named, joined).items():
        findings.add("partial_classes", name, f"it lacks {', '.join(lacking)}")
    if len(joined.names) != num_classes:
        text = (
            f"dataset.NUM_CLASSES is {num_classes}, there are {len(joined.names) - 1} categories + "
            f"1 = {len(joined.names)}: {', '.join(joined.names[1:])}"
        )
        findings.add("classes", together, text)
        return
    if cfg.network.SUPER_CLASSES:
        try:
            super_of(read_super_classes(cfg.network.SUPER_CLASSES), joined)
        except DataError as error:
            findings.add_error("classes", together, error)
    for dataset in tested:
        try:
            match_set(dataset, joined)
        except (ConfigError, DataError) as error:
            findings.add_error("classes", dataset.name, error)


def check_empty_classes(findings: Findings, sets: Sequence[Dataset]) -> None:
    """Looks for classes without objects in all sets together."""
    annotated = [dataset for dataset in sets if dataset.has_annotations]
    objects: Counter[str] = Counter()
    for dataset in annotated:
        classes = [record.gt_classes for record in dataset.records]
        counts = np.bincount(np.concatenate([np.zeros(0, np.int32), *classes]))
        objects.update(dict(zip(dataset.class_names, counts.tolist())))
    names = dict.fromkeys(name for dataset in annotated for name in dataset.class_names[1:])
    for name in names:
        if not objects[name]:
            findings.add("empty_class", "+".join(own.name for own in annotated), name)


def check_shared_images(findings: Findings, sets: Sequence[Dataset]) -> None:
    """Looks for image files that more than one set uses."""
    owner: dict[str, str] = {}
    for dataset in sets:
        for path in dict.fromkeys(os.path.normpath(r.image_path) for r in dataset.records):
            first = owner.setdefault(path, dataset.name)
            if first != dataset.name:
                findings.add("shared_image", dataset.name, f"{path} is in {first} too")


@dataclass(frozen=True, eq=False)
class FirstEpoch:
    """The chips of the first epoch, and what they make of the annotations."""

    records: Sequence[Record]
    epoch: Epoch
    account: Account


def first_epoch(
    findings: Findings, sets: Sequence[Dataset], image_sets: Sequence[str], cfg: EasyDict
) -> FirstEpoch | None:
    """Starts as training does, up to the first batch; what training would refuse is found.

    Where errors are known already, the usable parts of the sets have to do. None without any.
    """
    if is_clean(findings):
        started = _start(findings, image_sets, cfg)
        if started is not None:
            return started
    records = [record for dataset in sets for record in _usable(dataset, cfg)]
    if not records:
        return None
    settings = replace(chip_settings(cfg), use_neg_chips=False)
    try:
        epoch = make_epoch(records, settings, seed=cfg.seed, epoch=0, batch_size=1)
    except OpsError as error:
        if "loader" not in findings.counts:
            findings.add_error("loader", "+".join(image_sets), error)
        return None
    account = account_of(intake_of(sets), records, epoch, settings)
    return FirstEpoch(records, epoch, account)


def _start(findings: Findings, image_sets: Sequence[str], cfg: EasyDict) -> FirstEpoch | None:
    negatives = needs_proposals(cfg)
    data = replace(training_data(cfg), sets=tuple(image_sets), with_negatives=negatives)
    settings = replace(chip_settings(cfg), use_neg_chips=negatives)
    try:
        sets = read_training_sets(data)
        with TrainLoader(
            sets.records,
            settings,
            batch_settings(cfg),
            batch_size=cfg.TRAIN.BATCH_IMAGES,
            num_workers=0,
            seed=cfg.seed,
        ) as loader:
            loader.start_epoch(0)
            next(loader)
            epoch = loader.epoch
    except SniperError as error:
        findings.add_error("loader", "+".join(image_sets), error)
        return None
    account = training_account(sets, epoch, settings, cfg.TRAIN.MAX_POLYGON_LEN)
    return FirstEpoch(sets.records, epoch, account)


def _usable(dataset: Dataset, cfg: EasyDict) -> list[Record]:
    records = [record for record in dataset.records if record.num_gt]
    return append_flipped(records) if cfg.TRAIN.FLIP else records


def check_chips(
    findings: Findings, first: FirstEpoch, sets: Sequence[Dataset], cfg: EasyDict
) -> None:
    """Looks for boxes that no chip trains, and for chips with more boxes than fit."""
    set_of = {record.image_path: dataset.name for dataset in sets for record in dataset.records}
    levels = first.account.levels
    originals = [record for record in first.records if not record.flipped]
    for fate in first.account.fates:
        if fate.name == TRAINED:
            continue
        for box in fate.boxes.tolist():
            record = originals[levels.record[box]]
            text = f"{_box_text(record, levels.boxes[box])}: {fate.text}"
            findings.add("untrainable", set_of[record.image_path], text)
    chips = first.epoch.chips
    crowded = np.flatnonzero(chips.num_gt > cfg.TRAIN.MAX_GT)
    for row, index in zip(crowded.tolist(), chips.record_of_chip[crowded].tolist()):
        record = first.records[index]
        if record.flipped:
            continue
        level = level_name(cfg.TRAIN.SCALES, int(chips.level[row]))
        text = (
            f"image {record.original_id}, {record.image_path}: {chips.num_gt[row]} boxes in a "
            f"chip at {level}"
        )
        findings.add("crowded_chip", set_of[record.image_path], text)


def _box_text(record: Record, box: np.ndarray) -> str:
    x1, y1, x2, y2 = box.tolist()
    return (
        f"image {record.original_id}, {record.image_path}: box at ({x1:g}, {y1:g}), "
        f"{x2 - x1 + 1:g}x{y2 - y1 + 1:g} px"
    )


def check_legacy_proposals(findings: Findings, sets: Sequence[Dataset], cfg: EasyDict) -> None:
    """Reads the proposal files of 2018, whose order is that of all images of a set."""
    if not needs_proposals(cfg):
        return
    for dataset in sets:
        legacy = find_legacy_file(cfg.proposal_path, dataset.name)
        if legacy is not None and not proposal_file(cfg.proposal_path, dataset.name).exists():
            try:
                load_legacy_proposals(legacy, dataset)
            except DataError as error:
                findings.add_error("proposals", dataset.name, error)


def needs_proposals(cfg: EasyDict) -> bool:
    """Whether proposal files must be there; a run that mines makes them itself."""
    return with_negatives(cfg) and not mines(cfg)


def check_proposals(findings: Findings, sets: Sequence[Dataset], cfg: EasyDict) -> None:
    """Compares the proposal files with the sets, when training needs proposals."""
    if not needs_proposals(cfg):
        return
    for dataset in sets:
        path = proposal_file(cfg.proposal_path, dataset.name)
        if not path.exists():
            if find_legacy_file(cfg.proposal_path, dataset.name) is None:
                findings.add("proposals", dataset.name, f"there is no file {path}")
            continue
        try:
            proposals = load_proposals(path)
        except DataError as error:
            findings.add_error("proposals", dataset.name, error)
            continue
        missing = [r.image_id for r in dataset.records if r.image_id not in proposals]
        if proposals.set_name != dataset.name:
            text = f"{path} is for the set {proposals.set_name}"
            findings.add("proposals", dataset.name, text)
        if missing:
            text = (
                f"{path} lacks {len(missing)} of {len(dataset.records)} images, "
                f"such as {', '.join(map(str, missing[:5]))}"
            )
            findings.add("proposals", dataset.name, text)


def is_clean(findings: Findings) -> bool:
    """Nothing was found that training would refuse."""
    return findings.count(ERROR) == 0
