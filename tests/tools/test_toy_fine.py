"""`sniper make-toy-data --fine`: classes that only shape, hue and filling together tell apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.tools import make_toy_data as tool
from sniper.tools.toy import scene
from sniper.tools.toy.fine import HUES, fine_classes, held_out_first
from sniper.tools.toy.scene import SceneSettings
from sniper.tools.toy.settings import FEW_SHOT, NOVEL, SPLITS, ToySettings
from sniper.tools.toy.shapes import CLASSES
from sniper.tools.toy.textures import FILLINGS, fine_fill


def test_every_shape_comes_in_every_hue_and_filling() -> None:
    kinds = fine_classes(CLASSES)
    assert len({kind.name for kind in kinds}) == len(kinds) == 140
    ids = [kind.category_id for kind in kinds]
    assert ids == sorted(set(ids))
    assert kinds[0].name == "plain-red-ring" and kinds[0].group == "ring"


def test_what_is_held_out_has_each_shape_hue_and_filling_and_so_has_the_rest() -> None:
    order = held_out_first(CLASSES)
    assert sorted(k.name for k in order) == sorted(k.name for k in fine_classes(CLASSES))
    for part, most in ((order[:20], 2), (order[20:], 12)):
        assert set(Counter(k.group for k in part).values()) == {most}
        assert Counter(k.filling for k in part) == dict.fromkeys(FILLINGS, len(part) // 2)
        hues = Counter(k.hue_deg for k in part)
        assert len(hues) == len(HUES) and max(hues.values()) - min(hues.values()) <= 1


def test_size_and_number_say_nothing_of_a_fine_class() -> None:
    settings = SceneSettings(fine=True)
    kinds = settings.kinds
    plans = [
        scene._plan(np.random.default_rng(3), settings, order, 640, 480)
        for order in (kinds, kinds[::-1])
    ]
    assert [p.size_px for p in plans[0]] == [p.size_px for p in plans[1]]
    assert [p.kind for p in plans[0]] != [p.kind for p in plans[1]]


def test_a_fine_class_keeps_its_hue_where_it_hardly_stands_out() -> None:
    rng = np.random.default_rng(0)
    for kind in fine_classes(CLASSES[:1]):
        around = np.float32([190, 190, 190])
        main, _ = scene._colours(rng, kind, (40, 40), 40.0, around, 95.0)
        hue = cv2.cvtColor((main[None, None] / 255).astype(np.float32), cv2.COLOR_BGR2HSV)[0, 0, 0]
        assert abs((hue - kind.hue_deg + 180) % 360 - 180) <= 15.5, kind.name


def test_stripes_alternate_and_grow_with_their_object() -> None:
    colours = np.float32([[40, 40, 40], [220, 220, 220]])
    changes = {}
    for filling in FILLINGS:
        for size in (48, 192):
            counts = []
            for seed in range(8):
                rng = np.random.default_rng(seed)
                field = fine_fill(rng, size, size, float(size), colours, filling)[..., 0] > 130
                lines = [np.diff(line.astype(int)) for line in (*field, *field.T)]
                counts.append(max(np.abs(line).sum() for line in lines))
            changes[filling, size] = np.median(counts)
    assert min(changes["striped", size] for size in (48, 192)) >= 4
    assert abs(changes["striped", 48] - changes["striped", 192]) <= 3
    assert changes["plain", 192] <= 2


def test_a_fine_set_and_what_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "fine"
    counts = "--train 3 --val 1 --test 0 --test-dev 0 --held-out 3 --novel 2 --shots 2"
    flags = [str(out), "--fine", "--classes", "2", "--workers", "1", *counts.split()]
    small = ["--objects", "2", "4", "--long-side", "160", "--sizes", "20", "80"]
    assert tool.main([*flags, *small]) == 0
    assert "25 classes and 3 held out" in capsys.readouterr().out
    truth = {
        split: json.loads((out / f"annotations/instances_{split}.json").read_text())
        for split in ("train", "val", "novel")
    }
    names = {split: {c["name"] for c in t["categories"]} for split, t in truth.items()}
    assert len(names["train"]) == 25 and names["train"] == names["val"]
    assert names["novel"] == {k.name for k in held_out_first(CLASSES[:2])[:3]}
    assert not names["novel"] & names["train"]
    assert {c["supercategory"] for c in truth["train"]["categories"]} == {"ring", "triangle"}
    for t in truth.values():
        used = {a["category_id"] for a in t["annotations"]}
        assert used and used <= {c["id"] for c in t["categories"]}
    shots = sorted(p.relative_to(out / "few_shot") for p in out.glob("few_shot/*/*.jpg"))
    assert len(shots) == 6 and {p.parts[0] for p in shots} == names["novel"]
    assert not list(out.glob("annotations/*few_shot*"))
    assert tool.main([*flags, *small]) == 0
    assert "was there already" in capsys.readouterr().out
    plain = [str(out), *"--train 1 --val 0 --test 0 --test-dev 0 --force --workers 1".split()]
    assert tool.main([*plain, *small]) == 0
    assert not list(out.glob("few_shot/*")) and not list(out.glob("images/novel/*"))


def test_a_picture_to_learn_from_shows_one_large_object() -> None:
    settings = ToySettings(held_out=2, novel=1, shots=3, scene=SceneSettings(fine=True))
    assert settings.count(FEW_SHOT) == 6
    for index in range(6):
        one, kinds = settings.content(FEW_SHOT, index)
        assert kinds == (settings.kinds(NOVEL)[index // 3],)
        assert one.max_objects == 1 and one.max_distractors == 0
        picture = scene.render_scene(np.random.default_rng(index), one, kinds=kinds)
        (thing,) = picture.objects
        assert thing.kind == kinds[0]
        assert max(thing.box[2:]) > 0.2 * max(picture.image.shape)


def test_held_out_classes_need_fine_classes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert tool.main([str(tmp_path / "out"), "--shots", "3"]) == 2
    assert "--fine" in capsys.readouterr().err


def test_stamps_of_plain_sets_say_nothing_of_fine_ones() -> None:
    assert set(ToySettings().as_dict()["scene"]) == {
        *("classes", "min_objects", "max_objects", "min_size_px", "max_size_px", "long_side_px"),
    }
    fine = ToySettings(held_out=3, scene=SceneSettings(fine=True))
    assert fine.as_dict()["held_out"] == 3 and fine.as_dict()["scene"]["fine"]
    assert fine.splits[: len(SPLITS)] == SPLITS
