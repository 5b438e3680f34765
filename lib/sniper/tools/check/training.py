"""Does the data fit the configuration: classes, chips of the pyramid, proposals, the loader."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from easydict import EasyDict

from sniper.chips.measures import TRAINED, measure
from sniper.data import Dataset, load_proposals
from sniper.data.classes import join_classes, lacking_classes, match_set
from sniper.data.legacy_proposals import find_legacy_file, load_legacy_proposals
from sniper.data.problems import ERROR
from sniper.data.record import Record
from sniper.errors import ConfigError, DataError
from sniper.runs.datasets import open_dataset, proposal_file
from sniper.runs.resolve import chip_settings, data_source, mines, with_negatives
from sniper.runs.start_up_report import level_name
from sniper.tools.check.findings import Findings


def check_classes(
    findings: Findings, training: Sequence[Dataset], tested: Sequence[Dataset], num_classes: int
) -> None:
    """Matches the classes of the sets by name, as training and testing do."""
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
