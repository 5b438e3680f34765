"""Which image an id of a result file means, for sets whose images have names only."""

from __future__ import annotations

import json
from pathlib import Path

from sniper.data.dataset import Dataset
from sniper.files import atomic_write_text


def write_image_list(path: str | Path, dataset: Dataset) -> None:
    """Writes images and categories in COCO format, as `image_info_<set>.json` has them.

    Raises:
        TrainingError: the file could not be written.
    """
    content = {
        "images": [
            {
                "id": record.image_id,
                "file_name": record.image_path,
                "width": record.width,
                "height": record.height,
            }
            for record in dataset.records
        ],
        "categories": [
            {"id": identity, "name": name}
            for identity, name in zip(dataset.category_ids[1:], dataset.class_names[1:])
        ],
    }
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")
