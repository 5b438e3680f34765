"""Objects that lose their annotation: exact shares, whole neighbourhoods, nothing else changed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.tools.make_toy_data import main
from sniper.tools.toy.drop import drop_any, drop_far, gaps_px, reach_px, to_labelled_px
from sniper.tools.toy.scene import SceneSettings
from sniper.tools.toy.settings import ToySettings
from sniper.tools.toy.writer import make_toy_data

SCENE = SceneSettings(classes=3, long_side_px=256, min_objects=4, max_objects=7, max_size_px=70)


def make(folder, images_from=None, **more):
    settings = ToySettings(train=24, val=3, test=0, test_dev=1, scene=SCENE, **more)
    lines = []
    make_toy_data(*(folder, settings), workers=1, images_from=images_from, progress=lines.append)
    return folder, lines


def random_boxes(seed, images=40):
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(images):
        count = int(rng.integers(0, 9))
        corners, sides = rng.integers(0, 400, (count, 2)), rng.integers(5, 90, (count, 2))
        boxes.append(np.concatenate([corners, sides], axis=1).astype(float))
    return boxes


def slow_gap(a, b):
    """The least distance of two points with whole coordinates in two boxes."""
    steps = []
    for side in (0, 1):
        ours, theirs = (np.arange(box[side], box[side] + box[side + 2] + 1) for box in (a, b))
        steps.append(np.abs(ours[:, None] - theirs).min())
    return np.sqrt(steps[0] ** 2 + steps[1] ** 2)


def test_gaps_are_distances_of_the_nearest_points():
    boxes = next(rows for rows in random_boxes(1) if len(rows) > 5)
    slow = [[slow_gap(a, b) for b in boxes] for a in boxes]
    np.testing.assert_allclose(gaps_px(boxes), slow)
    touching = np.array([[0, 0, 5, 5], [5, 5, 3, 3], [2, 2, 9, 9]], float)
    assert not gaps_px(touching).any()


def slow_reach(gaps, start):
    """Tries every gap as limit and floods from the start."""
    distances = np.full(len(gaps), np.inf)
    for limit in np.unique(np.append(gaps, 0)):
        there = {start}
        for _ in range(len(gaps)):
            there |= {row for at in there for row in np.flatnonzero(gaps[at] <= limit).tolist()}
        rows = sorted(there)
        distances[rows] = np.minimum(distances[rows], limit)
    return distances


@pytest.mark.parametrize("seed", range(4))
def test_reach_is_the_least_limit_that_floods_an_object(seed):
    for rows in random_boxes(seed, images=12):
        for start in range(min(len(rows), 2)):
            gaps = gaps_px(rows)
            np.testing.assert_array_equal(reach_px(gaps, start), slow_reach(gaps, start))


@pytest.mark.parametrize("drop", [drop_any, drop_far])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.55])
def test_shares_are_reached_and_every_image_keeps_a_label(drop, share):
    for seed in range(3):
        boxes = random_boxes(seed)
        lost = drop(boxes, share, seed)
        total = sum(map(len, boxes))
        assert sum(rows.sum() for rows in lost) == round(share * total)
        assert all(not rows.all() for rows in lost if len(rows))
        again, other = drop(boxes, share, seed), drop(boxes, share, seed + 1)
        assert all((a == b).all() for a, b in zip(lost, again))
        assert not share or any((a != b).any() for a, b in zip(lost, other))


def test_far_objects_are_farther_from_labels_than_any():
    for seed in range(5):
        boxes = random_boxes(seed)
        far = to_labelled_px(boxes, drop_far(boxes, 0.3, seed))
        near = to_labelled_px(boxes, drop_any(boxes, 0.3, seed))
        assert len(far) == len(near)
        assert far.min() > 0 and np.median(far) > 1.5 * np.median(near)
        assert (np.sort(far) >= np.sort(near)).mean() > 0.9


def test_neighbours_keep_or_lose_their_labels_together():
    """A row of four and one of three, far apart: no seed cuts through either."""
    boxes = [
        np.array([[20 * k, 0, 15, 15] for k in range(4)] + [[k * 19, 300, 9, 9] for k in range(3)])
    ]
    boxes = [rows.astype(float) for rows in boxes]
    cuts = set()
    for seed in range(12):
        try:
            (lost,) = drop_far(boxes, 3 / 7, seed)
        except ConfigError:  # it starts among the three: the four are too many
            continue
        cuts.add(tuple(lost.tolist()))
    assert (False,) * 4 + (True,) * 3 in cuts
    # Without room for a whole row, labelling that starts in it goes from neighbour to neighbour.
    assert all(cut[:4] == (False,) * 4 or cut[4:] == (False,) * 3 for cut in cuts)


def test_shares_that_cannot_be_reached_are_refused():
    apart = [np.array([[0, 0, 9, 9], [50, 0, 9, 9]], float)] * 4
    assert sum(rows.sum() for rows in drop_any(apart, 0.5, 0)) == 4
    with pytest.raises(ConfigError, match="keeps one") as caught:
        drop_any(apart, 0.8, 0)
    assert "at most 0.50" in str(caught.value)
    touching = [np.array([[0, 0, 9, 9], [5, 0, 9, 9]], float)] * 4
    with pytest.raises(ConfigError, match="touch"):
        drop_far(touching, 0.3, 0)
    assert drop_far([], 0.5, 0) == drop_any([], 0.5, 0) == []
    assert not len(to_labelled_px([], []))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The whole set, and both kinds of dropping; one of them takes the images of the first."""
    root = tmp_path_factory.mktemp("drop")
    return {
        "whole": make(root / "whole", openimages=True),
        "any": make(root / "any", root / "whole", openimages=True, drop_labels=0.3),
        "far": make(root / "far", openimages=True, drop_far=0.3),
    }


def annotations(folder):
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    # Ids count what is there.
    return content, [{**entry, "id": 0} for entry in content["annotations"]]


def test_both_drops_change_annotations_of_training_alone(sets):
    whole, _ = sets["whole"]
    total = len(annotations(whole)[1])
    for name in ("any", "far"):
        folder, lines = sets[name]
        files = {str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file()}
        assert files == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        changed = {f for f in files if (whole / f).read_bytes() != (folder / f).read_bytes()}
        assert changed == {
            "toy_data.json",
            "annotations/instances_train.json",
            "annotations/train-annotations-bbox.csv",
        }
        content, entries = annotations(folder)
        count = round(0.3 * total)
        assert len(entries) == total - count
        assert content["info"]["objects_without_annotation"] == count
        assert lines[-1].startswith(f"{count} of {total} objects of train have no annotation")
        everything = [json.dumps(entry) for entry in annotations(whole)[1]]
        assert {json.dumps(entry) for entry in entries} <= set(everything)
        assert {e["image_id"] for e in entries} == {i["id"] for i in content["images"]}
    assert "objects_without_annotation" not in annotations(whole)[0]["info"]


def test_boxes_of_open_images_are_those_of_the_whole_set_without_the_lost(sets):
    def rows(folder, title="IsGroupOf"):
        lines = (folder / "annotations" / "train-annotations-bbox.csv").read_text().splitlines()
        column = lines[0].split(",").index(title)
        return [(line, line.split(",")[column] == "1") for line in lines[1:]]

    whole = rows(sets["whole"][0])
    singles, groups = ([row for row, group in whole if group == is_group] for is_group in (0, 1))
    for name in ("any", "far"):
        less = rows(sets[name][0])
        new = [row for row, _ in less if row not in {row for row, _ in whole}]
        # What is left of a group that lost members is the only thing with another box.
        assert len(new) <= len(groups)
        assert len(less) < len(whole) and singles
        assert sum(group for _, group in less) <= len(groups)


def test_drops_of_a_set_differ_in_distance(sets):
    def distances(name):
        place = [
            {(e["image_id"], *e["bbox"]) for e in annotations(sets[kind][0])[1]}
            for kind in ("whole", name)
        ]
        found = []
        for image, *box in sorted(place[0] - place[1]):
            kept = [row[1:] for row in place[1] if row[0] == image]
            found.append(gaps_px(np.array([box, *kept]))[0, 1:].min())
        return np.array(found)

    far, near = distances("far"), distances("any")
    assert len(far) == len(near) and far.min() > 0
    assert np.median(far) > np.median(near)


def test_flags(tmp_path, capsys):
    flags = "--train 6 --val 0 --test 0 --test-dev 0 --long-side 256 --sizes 12 50 --workers 1"
    out = str(tmp_path / "x")
    assert main([out, *flags.split(), "--drop-far", "0.2", "--drop-seed", "5"]) == 0
    assert "have no annotation; the nearest object with one is" in capsys.readouterr().out
    stamp = json.loads((tmp_path / "x" / "toy_data.json").read_text())["settings"]
    assert (stamp["drop_far"], stamp["drop_seed"]) == (0.2, 5) and "drop_labels" not in stamp
    assert main([out, "--drop-far", "0.2", "--drop-labels", "0.2"]) == 2
    assert "not allowed with" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="dropped labels"):
        ToySettings(drop_far=0.2, drop_labels=0.2)
    with pytest.raises(ConfigError, match="dropped labels"):
        ToySettings(drop_far=1.0)
    assert main(["--help"]) == 0
    assert "farthest from annotated ones" in " ".join(capsys.readouterr().out.split())
