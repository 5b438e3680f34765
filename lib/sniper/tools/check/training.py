"""Does the data fit the configuration: classes, chips of the pyramid, proposals, the loader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from easydict import EasyDict

from sniper.chips.measures import TRAINED, measure
from sniper.data import Dataset, load_proposals
from sniper.data.legacy_proposals import find_legacy_file, load_legacy_proposals
from sniper.data.problems import ERROR
from sniper.data.record import Record
from sniper.errors import ConfigError, DataError
from sniper.runs.datasets import open_dataset, proposal_file
from sniper.runs.resolve import chip_settings, data_source, mines, with_negatives
from sniper.runs.start_up_report import level_name
from sniper.tools.check.findings import Findings


def check_classes(findings: Findings, sets: Sequence[Dataset], num_classes: int) -> None:
    """Compares the classes of the sets with each other and with `dataset.NUM_CLASSES`."""
    for dataset in sets:
        names = dataset.class_names[1:]
        if not dataset.has_annotations and not names:
            continue
        if len(names) + 1 != num_classes:
            text = (
                f"dataset.NUM_CLASSES is {num_classes}, the set has {len(names)} categories + 1 = "
                f"{len(names) + 1}"
            )
            findings.add("classes", dataset.name, text)
        if dataset.class_names != sets[0].class_names:
            findings.add("classes", dataset.name, _difference(dataset, sets[0]))


def _difference(dataset: Dataset, first: Dataset) -> str:
    names = dataset.class_names
    if set(names) == set(first.class_names):
        return f"the same classes as {first.name} in another order"
    only = sorted(set(names) - set(first.class_names))[:5]
    lacks = sorted(set(first.class_names) - set(names))[:5]
    parts = [f"has {', '.join(only)}"] if only else []
    parts += [f"lacks {', '.join(lacks)}"] if lacks else []
    return f"other classes than {first.name}: {'; '.join(parts)}"


def check_empty_classes(findings: Findings, sets: Sequence[Dataset]) -> None:
    """Looks for classes without objects in all sets together (they have the same classes)."""
    annotated = [dataset for dataset in sets if dataset.has_annotations]
    if not annotated:
        return
    names = annotated[0].class_names
    counts = np.zeros(len(names), np.int64)
    for dataset in annotated:
        for record in dataset.records:
            counts += np.bincount(record.gt_classes, minlength=len(counts))[: len(counts)]
    for index, name in enumerate(names):
        if index and not counts[index]:
            findings.add("empty_class", "+".join(own.name for own in annotated), name)


def check_shared_images(findings: Findings, sets: Sequence[Dataset]) -> None:
    """Looks for image files that more than one set uses."""
    owner: dict[str, str] = {}
    for dataset in sets:
        for path in dict.fromkeys(os.path.normpath(r.image_path) for r in dataset.records):
            first = owner.setdefault(path, dataset.name)
            if first != dataset.name:
                findings.add("shared_image", dataset.name, f"{path} is in {first} too")


def check_chips(findings: Findings, sets: Sequence[Dataset], cfg: EasyDict) -> None:
    """Looks for boxes that no chip trains, and for chips with more boxes than fit."""
    settings = replace(chip_settings(cfg), use_neg_chips=False)
    for dataset in sets:
        records = [record for record in dataset.records if record.num_gt]
        if not records:
            continue
        measures = measure(records, settings, seed=cfg.seed, epoch=0)
        levels = measures.levels
        for fate in measures.fates:
            if fate.name == TRAINED:
                continue
            for box in fate.boxes.tolist():
                record = records[levels.record[box]]
                text = f"{_box_text(record, levels.boxes[box])}: {fate.text}"
                findings.add("untrainable", dataset.name, text)
        chips = measures.epoch.chips
        for row in np.flatnonzero(chips.num_gt > cfg.TRAIN.MAX_GT).tolist():
            record = records[chips.record_of_chip[row]]
            level = level_name(settings.scales, int(chips.level[row]))
            text = (
                f"image {record.image_id}, {record.image_path}: {chips.num_gt[row]} boxes in a "
                f"chip at {level}"
            )
            findings.add("crowded_chip", dataset.name, text)


def _box_text(record: Record, box: np.ndarray) -> str:
    x1, y1, x2, y2 = box.tolist()
    return (
        f"image {record.image_id}, {record.image_path}: box at ({x1:g}, {y1:g}), "
        f"{x2 - x1 + 1:g}x{y2 - y1 + 1:g} px"
    )


def check_loader(findings: Findings, image_sets: Sequence[str], cfg: EasyDict) -> None:
    """Reads the sets and their proposals as training would: a net for all that was not thought of.

    It stops at the first problem of a set, so it is asked only where nothing else was found.
    """
    with_masks = bool(cfg.TRAIN.WITH_MASK) and not cfg.TRAIN.ONLY_PROPOSAL
    for image_set in image_sets:
        try:
            dataset = open_dataset(data_source(cfg), image_set, with_masks=with_masks)
        except (ConfigError, DataError) as error:
            findings.add_error("loader", image_set, error)
            continue
        legacy = find_legacy_file(cfg.proposal_path, dataset.name)
        path = proposal_file(cfg.proposal_path, dataset.name)
        if needs_proposals(cfg) and not path.exists() and legacy is not None:
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
