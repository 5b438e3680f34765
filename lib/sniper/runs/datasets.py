"""Data sets and training records of a plan."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sniper.chips.account import Account, account_of
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.sampler import Epoch
from sniper.data import (
    Dataset,
    ProposalSet,
    Record,
    append_flipped,
    attach_proposals,
    filter_trainable,
    load_dataset,
    load_proposals,
)
from sniper.data.account import LEFT_OUT, Intake, join_intakes
from sniper.data.classes import (
    Classes,
    check_count,
    join_classes,
    lacking_classes,
    match_names,
    match_training,
    renumbered_records,
)
from sniper.data.legacy_proposals import find_legacy_file, load_legacy_proposals
from sniper.data.orientation import AUTO
from sniper.data.problems import OnProblem, stop_at_errors
from sniper.errors import DataError
from sniper.targets.masks import count_long_masks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSource:
    """Where the data sets of a run are.

    Attributes:
        format: name of the data format.
        path: root folder of the sets.
        cache_dir: where parsed annotations are kept.
        num_classes: classes of the network, with background.
        legacy_boxes: boxes by the rules of 2018.
        annotation_file: the annotations, where they are not in the usual place; None: they are.
        image_folder: the folder of the images, the same.
        exif: what EXIF orientation does, see `sniper.data.orientation.ImageFrame`.
    """

    format: str
    path: Path
    cache_dir: Path
    num_classes: int
    legacy_boxes: bool
    annotation_file: str | None = None
    image_folder: str | None = None
    exif: str = AUTO


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        source: where the sets are.
        sets: their names, each once.
        with_masks: also read the polygons.
        with_negatives: also read the proposals, which become negative chips.
        keep_without_objects: images without objects may give negative chips.
        flip: add a mirrored copy of every image.
        proposal_dir: folder of the proposal files.
        background_chips: chips are cut at random places, too.
    """

    source: DataSource
    sets: tuple[str, ...]
    with_masks: bool
    with_negatives: bool
    keep_without_objects: bool
    flip: bool
    proposal_dir: Path
    background_chips: bool = False


def open_dataset(
    source: DataSource,
    image_set: str,
    *,
    with_masks: bool = False,
    on_problem: OnProblem = stop_at_errors,
) -> Dataset:
    """One data set, with its own classes: see `sniper.data.classes` for those of a model.

    Args:
        source: where the sets are (`sniper.runs.resolve.data_source`).
        image_set: the set's name.
        with_masks: also read the polygons.
        on_problem: see `load_dataset`.

    Raises:
        DataError: annotations or images are missing or broken.
    """
    return load_dataset(
        source.format,
        source.path,
        image_set,
        with_masks=with_masks,
        legacy_boxes=source.legacy_boxes,
        annotation_file=source.annotation_file,
        image_folder=source.image_folder,
        exif=source.exif,
        cache_dir=source.cache_dir,
        on_problem=on_problem,
    )


def proposal_file(folder: str | Path, dataset_name: str) -> Path:
    """`<folder>/<NAME>_rpn.npz`: where extraction writes and training reads proposals."""
    return Path(folder) / f"{dataset_name}_rpn.npz"


@dataclass(frozen=True, eq=False)
class TrainingSets:
    """What the training sets hold.

    Attributes:
        records: with proposals and mirrored copies.
        classes: joined by name.
        intake: the annotations of all sets, and which of them are no objects.
        names: of the sets, as proposal files are called after.
        annotations: the annotation files; of formats with a folder of them none.
    """

    records: list[Record]
    classes: Classes
    intake: Intake
    names: tuple[str, ...] = ()
    annotations: tuple[Path, ...] = ()


def training_records(data: TrainingData) -> tuple[list[Record], tuple[str, ...]]:
    """Records of all training sets and the class names; see `read_training_sets`."""
    sets = read_training_sets(data)
    return sets.records, sets.classes.names


def intake_of(sets: Sequence[Dataset]) -> Intake:
    """The annotations of several sets; of one that does not say, those that are objects."""
    return join_intakes(dataset.intake or Intake(dataset.num_objects) for dataset in sets)


def read_training_sets(data: TrainingData, run: Classes | None = None) -> TrainingSets:
    """Records of all training sets, with proposals and flips, and their classes, joined by name.

    Args:
        data: what to train on (`sniper.runs.resolve.training_data`).
        run: the classes of the run that is resumed; the records get their order.

    Raises:
        ConfigError: the configuration does not fit the data.
        DataError: annotations, images or proposals are missing or broken, the classes are not those
            of the run, or there is nothing to train on.
    """
    sets = [open_dataset(data.source, name, with_masks=data.with_masks) for name in data.sets]
    intake = intake_of(sets)
    classes = _classes_of(sets, data.source.num_classes, run)
    records: list[Record] = []
    for dataset in sets:
        places = match_names(dataset.class_names, classes.names).places
        set_records = list(renumbered_records(dataset.records, places))
        if data.with_negatives:
            proposals = _proposals(data.proposal_dir, dataset)
            set_records = attach_proposals(set_records, proposals, set_name=dataset.name)
        if data.flip:
            set_records = append_flipped(set_records, legacy=data.source.legacy_boxes)
        records.extend(set_records)
    _tell_shared_images(sets)
    keep_empty, can_use = data.keep_without_objects, data.with_negatives or data.background_chips
    if keep_empty and not can_use:
        logger.info("TRAIN.NEG_CHIPS_WITHOUT_OBJECTS has no effect without negative chips")
    kept = filter_trainable(
        records,
        keep_without_objects=bool(keep_empty and can_use),
        need_proposals=not data.background_chips,
    )
    with_objects = sum(record.num_gt > 0 for record in kept)
    logger.debug("%d training images with flips, %d with objects", len(records), with_objects)
    if not with_objects:
        raise DataError(
            "no training image has a ground-truth object",
            where=f"{data.source.path}, sets {'+'.join(data.sets)}",
            got=_left_out(intake),
            fix="check the annotation files; crowd regions and difficult objects alone do not "
            "count as objects",
        )
    paths = [Path(dataset.annotation_path) for dataset in sets]
    return TrainingSets(
        *(kept, classes, intake),
        names=tuple(dataset.name for dataset in sets),
        annotations=tuple(path for path in paths if path.is_file()),
    )


def training_account(
    sets: TrainingSets, epoch: Epoch, chips: ChipSettings, mask_row_length: int
) -> Account:
    """The account of all annotations, for the start of a run and for `sniper check-data`.

    Args:
        sets: what is trained.
        epoch: chips of its records.
        chips: how they were made.
        mask_row_length: `TRAIN.MAX_POLYGON_LEN`.
    """
    originals = (record for record in sets.records if not record.flipped)
    long_masks = count_long_masks(originals, mask_row_length)
    return account_of(sets.intake, sets.records, epoch, chips, long_masks=long_masks)


def _left_out(intake: Intake) -> str:
    reasons = [
        f"{intake.left_out[entry.name]} {entry.text}"
        for entry in LEFT_OUT
        if entry.name in intake.left_out
    ]
    return f"{intake.read} annotations{': ' if reasons else ''}{', '.join(reasons)}"


def _classes_of(sets: Sequence[Dataset], num_classes: int, run: Classes | None) -> Classes:
    """The classes of joined sets, in the order of a run that is resumed."""
    joined = join_classes(sets)
    check_count(joined.names, num_classes, joined.where)
    for name, lacking in lacking_classes(sets, joined).items():
        logger.warning(
            "%s has no class %s, unlike other sets: such objects in its images count as background",
            *(name, ", ".join(lacking)),
        )
    if run is None:
        return joined
    return match_training(joined, run)


def _tell_shared_images(sets: Sequence[Dataset]) -> None:
    # Links may lead to one image in two ways; they are followed once per folder.
    folders: dict[str, str] = {}
    images: set[tuple[str, str]] = set()
    shared = 0
    for dataset in sets:
        of_set = set()
        for record in dataset.records:
            folder, name = os.path.split(record.image_path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            of_set.add((folders[folder], name))
        shared += len(images & of_set)
        images |= of_set
    if shared:
        logger.warning("%d images belong to more than one of the sets", shared)


def _proposals(folder: Path, dataset: Dataset) -> ProposalSet:
    """The proposals of a set: our file, or that of 2018 in the same folder."""
    path = proposal_file(folder, dataset.name)
    if path.exists():
        return load_proposals(path)
    legacy = find_legacy_file(folder, dataset.name)
    if legacy is None:
        raise DataError(
            "negative chips need proposals, and there is no proposal file",
            where=path,
            fix="main_train.py makes it with --set TRAIN.USE_NEG_CHIPS mine, and so does sniper "
            "mine-negatives; or train without negative chips: --set TRAIN.USE_NEG_CHIPS False",
        )
    logger.info(
        "no %s: reading the 2018 file %s (`sniper convert-proposals` makes this quicker)",
        *(path.name, legacy),
    )
    return load_legacy_proposals(legacy, dataset)
