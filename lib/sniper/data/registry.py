"""Data set kinds by the name that `dataset.dataset` gives them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Protocol

from sniper.data.coco import load_coco
from sniper.data.dataset import Dataset
from sniper.data.folders import load_folder
from sniper.data.voc import load_voc
from sniper.errors import ConfigError


class DatasetLoader(Protocol):
    """How a kind of data set is read."""

    def __call__(
        self,
        dataset_path: str | Path,
        image_set: str,
        *,
        with_masks: bool = False,
        cache_dir: str | Path | None = None,
    ) -> Dataset:
        """Reads one image set."""
        ...


# In lower case; case does not matter.
LOADERS: dict[str, DatasetLoader] = {
    "coco": load_coco,
    "pascalvoc": load_voc,
    "voc": load_voc,
    "folder": load_folder,
}


def load_dataset(
    kind: str,
    dataset_path: str | Path,
    image_set: str,
    *,
    with_masks: bool = False,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Reads one image set of the given kind.

    Args:
        kind: a key of `LOADERS`; case does not matter.
        dataset_path: root folder of the data set.
        image_set: one set's name (sets joined with `+` are read one by one).
        with_masks: also read the polygons.
        cache_dir: where parsed annotations are kept; None for no cache.

    Raises:
        ConfigError: there is no such kind.
        DataError: annotations or images are missing or broken.
    """
    loader = LOADERS.get(kind.lower())
    if loader is None:
        near = difflib.get_close_matches(kind.lower(), LOADERS, n=1)
        raise ConfigError(
            "there is no such kind of data set",
            where="dataset.dataset",
            got=repr(kind),
            expected=", ".join(sorted(LOADERS)),
            fix=f"did you mean {near[0]!r}?" if near else None,
        )
    return loader(dataset_path, image_set, with_masks=with_masks, cache_dir=cache_dir)
