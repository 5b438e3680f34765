"""Category ids for models of older versions, which know the names of their classes only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from sniper.data import load_dataset
from sniper.data.classes import Classes, match_names
from sniper.data.problems import Problem
from sniper.errors import SniperError
from sniper.runs.datasets import DataSource

logger = logging.getLogger(__name__)


def with_category_ids(classes: Classes, source: DataSource, sets: Sequence[str]) -> Classes:
    """The classes with their ids in the annotations of a recipe's sets, found by name.

    They stay as they are where the ids are known, or where no set has all names.
    """
    if classes.ids is not None or not classes.are_named:
        return classes
    for name in dict.fromkeys(sets):
        try:
            dataset = load_dataset(
                *(source.format, source.path, name),
                legacy_boxes=source.legacy_boxes,
                annotation_file=source.annotation_file,
                image_folder=source.image_folder,
                cache_dir=source.cache_dir,
                on_problem=_ignore,
            )
        except SniperError:
            continue
        match = match_names(classes.names, dataset.class_names)
        if not match.foreign:
            ids = (0, *(dataset.category_ids[place] for place in match.places[1:]))
            logger.info("category ids of the model's classes are those of %s", dataset.name)
            return replace(classes, ids=ids)
    logger.warning(
        "%s does not say which category ids its classes have, and no set of the recipe has them: "
        "category_id in results is the index of the class",
        classes.where,
    )
    return classes


def _ignore(_: Problem) -> None:
    """Ids do not depend on broken images or boxes."""
