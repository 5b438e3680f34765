"""Does the data fit the configuration: classes, chips of the pyramid, proposals, the loader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from easydict import EasyDict

from sniper.chips.measures import TRAINED, measure
from sniper.data import load_proposals
from sniper.data.legacy_proposals import find_legacy_file, load_legacy_proposals
from sniper.data.record import Record
from sniper.errors import ConfigError, DataError
from sniper.runs.datasets import open_dataset, proposal_file
from sniper.runs.plan import chip_settings, data_source
from sniper.runs.start_up_report import level_name
from sniper.tools.check.findings import ERROR, Findings
from sniper.tools.check.raw_set import RawSet, add_error


def check_classes(findings: Findings, sets: Sequence[RawSet], num_classes: int) -> None:
    """Compares the classes of the sets with each other and with `dataset.NUM_CLASSES`."""
    for raw in sets:
        names = raw.class_names
        if not raw.has_annotations and not names:
            continue
        if len(names) + 1 != num_classes:
            text = (
                f"dataset.NUM_CLASSES is {num_classes}, the set has {len(names)} categories + 1 = "
                f"{len(names) + 1}"
            )
            findings.add("classes", raw.name, text)
        if names != sets[0].class_names:
            findings.add("classes", raw.name, _difference(names, sets[0]))


def _difference(names: tuple[str, ...], first: RawSet) -> str:
    if set(names) == set(first.class_names):
        return f"the same classes as {first.name} in another order"
    only = sorted(set(names) - set(first.class_names))[:5]
    lacks = sorted(set(first.class_names) - set(names))[:5]
    parts = [f"has {', '.join(only)}"] if only else []
    parts += [f"lacks {', '.join(lacks)}"] if lacks else []
    return f"other classes than {first.name}: {'; '.join(parts)}"


def check_empty_classes(findings: Findings, sets: Sequence[RawSet]) -> None:
    """Looks for classes without objects in all sets together (they have the same classes)."""
    annotated = [raw for raw in sets if raw.has_annotations]
    if not annotated:
        return
    names = annotated[0].class_names
    found = np.zeros(len(names) + 1, np.int64)
    for raw in annotated:
        for record in raw.records:
            found += np.bincount(record.gt_classes, minlength=len(found))[: len(found)]
    for index, name in enumerate(names, start=1):
        if not found[index]:
            findings.add("empty_class", "+".join(raw.name for raw in annotated), name)


def check_shared_images(findings: Findings, sets: Sequence[RawSet]) -> None:
    """Looks for image files that more than one set uses."""
    owner: dict[str, str] = {}
    for raw in sets:
        for path in dict.fromkeys(os.path.normpath(r.image_path) for r in raw.records):
            first = owner.setdefault(path, raw.name)
            if first != raw.name:
                findings.add("shared_image", raw.name, f"{path} is in {first} too")


def check_chips(findings: Findings, sets: Sequence[RawSet], cfg: EasyDict) -> None:
    """Looks for boxes that no chip trains, and for chips with more boxes than fit."""
    settings = replace(chip_settings(cfg), use_neg_chips=False)
    for raw in sets:
        records = [record for record in raw.records if record.num_gt]
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
                findings.add("untrainable", raw.name, text)
        chips = measures.epoch.chips
        for row in np.flatnonzero(chips.num_gt > cfg.TRAIN.MAX_GT).tolist():
            record = records[chips.record_of_chip[row]]
            level = level_name(settings.scales, int(chips.level[row]))
            text = (
                f"image {record.image_id}, {record.image_path}: {chips.num_gt[row]} boxes in a "
                f"chip at {level}"
            )
            findings.add("crowded_chip", raw.name, text)


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
    with_negatives = bool(cfg.TRAIN.USE_NEG_CHIPS) and not cfg.TRAIN.ONLY_PROPOSAL
    with_masks = bool(cfg.TRAIN.WITH_MASK) and not cfg.TRAIN.ONLY_PROPOSAL
    for image_set in image_sets:
        try:
            dataset = open_dataset(data_source(cfg), image_set, with_masks=with_masks)
        except (ConfigError, DataError) as error:
            add_error(findings, "loader", image_set, error)
            continue
        legacy = find_legacy_file(cfg.proposal_path, dataset.name)
        path = proposal_file(cfg.proposal_path, dataset.name)
        if with_negatives and not path.exists() and legacy is not None:
            try:
                load_legacy_proposals(legacy, dataset)
            except DataError as error:
                add_error(findings, "proposals", dataset.name, error)


def check_proposals(findings: Findings, sets: Sequence[RawSet], cfg: EasyDict) -> None:
    """Compares the proposal files with the sets, when training needs proposals."""
    if not cfg.TRAIN.USE_NEG_CHIPS or cfg.TRAIN.ONLY_PROPOSAL:
        return
    for raw in sets:
        path = proposal_file(cfg.proposal_path, raw.name)
        if not path.exists():
            if find_legacy_file(cfg.proposal_path, raw.name) is None:
                findings.add("proposals", raw.name, f"there is no file {path}")
            continue
        try:
            proposals = load_proposals(path)
        except DataError as error:
            add_error(findings, "proposals", raw.name, error)
            continue
        missing = [r.image_id for r in raw.records if r.image_id not in proposals]
        if proposals.set_name != raw.name:
            text = f"{path} is for the set {proposals.set_name}"
            findings.add("proposals", raw.name, text)
        if missing:
            text = (
                f"{path} lacks {len(missing)} of {len(raw.records)} images, "
                f"such as {', '.join(map(str, missing[:5]))}"
            )
            findings.add("proposals", raw.name, text)


def is_clean(findings: Findings) -> bool:
    """Nothing was found that training would refuse."""
    return findings.count(ERROR) == 0
