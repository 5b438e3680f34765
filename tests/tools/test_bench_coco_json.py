"""The made annotation file of `scripts/bench/coco_json.py`: as COCO's in what readers meet."""

from __future__ import annotations

import json

import numpy as np

from bench import coco_json
from sniper.data.coco_columns import read_annotations
from sniper.data.coco_parse import parse_coco


def test_the_made_file_is_plain_and_has_crowds_and_polygons(tmp_path):
    coco_json.make_set(tmp_path, 0.0005)
    for reading in ("start", "again"):
        measured = coco_json._measured(coco_json.READINGS[reading], tmp_path)
        assert measured["peak_mb"] > 0 and len(list(tmp_path.glob("cache/*.npz"))) == 1
    path = tmp_path / "annotations" / "instances_made2017.json"
    content = json.loads(path.read_text())
    assert len(content["images"]) == 59 and len(content["annotations"]) == 430
    crowds = sum(entry["iscrowd"] for entry in content["annotations"])
    table = parse_coco(path, with_masks=True)
    assert len(table.boxes) == 430 - crowds and len(table.crowd_boxes) == crowds > 0
    assert (np.diff(table.polygon_offsets) > 0).all() and len(table.coordinates) > 10_000
    # No entry has to go the long way.
    _, annotations = read_annotations(path, with_masks=True, hook=lambda entry: entry)
    assert not [row for row, entry in annotations.odd.items() if not entry["iscrowd"]]
