"""`sniper make-toy-data --faces`: layout, boxes and attributes, and that only features tell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.errors import ConfigError, DataError
from sniper.tools import make_toy_data as tool
from sniper.tools.toy import face_scene
from sniper.tools.toy.canvas import Canvas
from sniper.tools.toy.face_scene import (
    CROWD,
    SCENE,
    STILL_LIFE,
    FaceSceneSettings,
    render_face_scene,
)
from sniper.tools.toy.face_set import FaceSetSettings, make_face_set
from sniper.tools.toy.features import EYE, MOUTH, NO_FACE_LAYOUTS, Layout, face_layout
from sniper.tools.toy.head import draw_head
from sniper.tools.toy.lookalikes import LOOKALIKES, draw_lookalike
from sniper.tools.toy.settings import ToySettings
from sniper.tools.toy.writer import make_toy_data

SCENES = FaceSceneSettings(long_side_px=256)
SMALL = FaceSetSettings(train=10, val=5, test=2, seed=3, scene=SCENES)


def quiet(_: str) -> None:
    pass


def digests(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def read_text(path: Path) -> dict[str, np.ndarray]:
    """Image -> (n, 10) rows, by the rules of the official readme."""
    lines = path.read_text().splitlines()
    faces, place = {}, 0
    while place < len(lines):
        count = int(lines[place + 1])
        rows = lines[place + 2 : place + 2 + max(count, 1)]
        table = np.array([[int(v) for v in row.split()] for row in rows])
        assert table.shape == (max(count, 1), 10) and (count or not table.any())
        faces[lines[place]] = table[:count]
        place += 2 + max(count, 1)
    return faces


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces") / "set"
    assert make_face_set(out, SMALL, workers=1, progress=quiet)
    return out


@pytest.fixture(scope="module")
def scenes() -> list[face_scene.FaceScene]:
    kinds = [CROWD] * 9 + [SCENE] * 14
    settings = FaceSceneSettings(long_side_px=400)
    return [
        render_face_scene(np.random.default_rng([5, k]), settings, kind)
        for k, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_image_is_where_the_text_says_and_holds_its_boxes(made: Path, split: str) -> None:
    faces = read_text(made / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt")
    images = made / f"WIDER_{split}" / "images"
    assert set(faces) == {str(p.relative_to(images)) for p in images.rglob("*.jpg")}
    assert len(faces) == SMALL.count(split)
    for name, rows in faces.items():
        height, width = cv2.imread(str(images / name)).shape[:2]
        x, y, w, h = rows[:, :4].T
        assert (w > 0).all() and (h > 0).all() and (x >= 0).all() and (y >= 0).all()
        assert (x + w <= width).all() and (y + h <= height).all()
        assert (rows[:, 4:] <= [2, 1, 1, 1, 2, 1]).all() and (rows[:, 4:] >= 0).all()
    assert any(not len(rows) for rows in faces.values()) == (split == "train")


def test_images_to_be_tested_have_no_annotations(made: Path) -> None:
    names = (made / "wider_face_split" / "wider_face_test_filelist.txt").read_text().split()
    images = made / "WIDER_test" / "images"
    assert sorted(names) == sorted(str(p.relative_to(images)) for p in images.rglob("*.jpg"))
    assert len(list((made / "wider_face_split").iterdir())) == 5


def test_levels_name_the_faces_that_count(made: Path) -> None:
    faces = read_text(made / "wider_face_split" / "wider_face_train_bbx_gt.txt")
    content = json.loads((made / "wider_face_split" / "train_levels.json").read_text())
    assert set(content["lists"]) == set(faces)
    for name, levels in content["lists"].items():
        rows = faces[name]
        valid = np.flatnonzero(rows[:, 7] == 0) + 1
        heights = dict(zip(range(1, len(rows) + 1), rows[:, 3]))
        assert levels["hard"] == valid.tolist()
        assert levels["medium"] == [row for row in levels["hard"] if heights[row] >= 16]
        assert set(levels["easy"]) <= {row for row in levels["medium"] if heights[row] >= 34}


def test_the_result_does_not_depend_on_processes_or_counts(made: Path, tmp_path: Path) -> None:
    whole = digests(made)
    make_face_set(tmp_path / "two", SMALL, workers=2, progress=quiet)
    assert digests(tmp_path / "two") == whole
    fewer = FaceSetSettings(train=2, val=0, test=1, seed=3, scene=SCENES)
    make_face_set(tmp_path / "fewer", fewer, workers=1, progress=quiet)
    part = digests(tmp_path / "fewer")
    images = [name for name in part if name.endswith(".jpg")]
    assert len(images) == 3 and all(part[name] == whole[name] for name in images)
    assert not list((tmp_path / "fewer" / "wider_face_split").glob("*val*"))
    other = FaceSetSettings(train=2, val=0, test=1, seed=4, scene=SCENES)
    make_face_set(tmp_path / "other", other, workers=1, progress=quiet)
    assert not {part[name] for name in images} & set(digests(tmp_path / "other").values())


def test_a_set_is_reused_mended_or_replaced(tmp_path: Path) -> None:
    settings = FaceSetSettings(train=2, val=1, test=0, scene=SCENES)
    assert make_face_set(tmp_path / "x", settings, workers=1, progress=quiet)
    before = digests(tmp_path / "x")
    assert not make_face_set(tmp_path / "x", settings, workers=1, progress=quiet)
    next((tmp_path / "x").rglob("*train*.jpg")).unlink()
    assert make_face_set(tmp_path / "x", settings, workers=1, progress=quiet)
    assert digests(tmp_path / "x") == before
    fewer = FaceSetSettings(train=1, val=0, test=0, scene=SCENES)
    with pytest.raises(DataError, match="train: 2 there, 1 wanted"):
        make_face_set(tmp_path / "x", fewer, workers=1, progress=quiet)
    own = tmp_path / "x" / "WIDER_train" / "images" / "0--Scene" / "holiday.jpg"
    own.write_bytes(b"mine")
    assert make_face_set(tmp_path / "x", fewer, workers=1, force=True, progress=quiet)
    left = {Path(name).name for name in digests(tmp_path / "x")}
    assert left == {
        *("toy_data.json", "holiday.jpg", "0_Scene_train_000000.jpg"),
        *("wider_face_train_bbx_gt.txt", "train_levels.json"),
    }


def test_sets_of_two_kinds_do_not_mix(tmp_path: Path) -> None:
    settings = FaceSetSettings(train=1, val=0, test=0, scene=SCENES)
    make_face_set(tmp_path, settings, workers=1, progress=quiet)
    before = digests(tmp_path)
    with pytest.raises(DataError, match="another kind"):
        make_toy_data(tmp_path, ToySettings(1, 0, 0, 0), force=True, progress=quiet)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("kind", [SCENE, CROWD])
def test_boxes_are_tight_around_what_is_drawn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    painted = []
    paint = Canvas.paint

    def record(self, colours, alpha, x, y, least, core=None):  # noqa: ANN001, ANN202
        if core is not None:
            painted.append((core, x, y))
        return paint(self, colours, alpha, x, y, least, core)

    monkeypatch.setattr(Canvas, "paint", record)
    for seed in range(4):
        painted.clear()
        scene = render_face_scene(np.random.default_rng(seed), SCENES, kind)
        height, width = scene.image.shape[:2]
        boxes = []
        for core, x, y in painted:
            whole = np.zeros((height + 2000, width + 2000), bool)
            whole[y + 1000 : y + 1000 + core.shape[0], x + 1000 : x + 1000 + core.shape[1]] = core
            rows, columns = np.nonzero(whole[1000 : 1000 + height, 1000 : 1000 + width])
            low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
            boxes.append((*low, high[0] - low[0], high[1] - low[1]))
        assert sorted(boxes) == sorted(
            [face.box for face in scene.faces] + [box for _, box in scene.lookalikes]
        )


@pytest.mark.parametrize("size", [8, 20, 90, 240])
def test_the_oval_of_a_face_has_the_wanted_size(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(6):
        sprite = draw_head(rng, size).sprite
        _, _, w, h = sprite.box
        assert np.sqrt(w * h) == pytest.approx(size, abs=1.5)
        assert (sprite.alpha[sprite.core] > 0.45).all() and not (sprite.shown & ~sprite.core).any()
        assert sprite.shown.sum() > 0.2 * sprite.core.sum()


def is_face(layout: Layout) -> bool:
    eyes = [part for part in layout if part.kind == EYE]
    mouths = [part for part in layout if part.kind == MOUTH]
    if len(eyes) != 2 or len(mouths) != 1:
        return False
    (left, right), mouth = eyes, mouths[0]
    level = abs(left.y - right.y) < 0.15 and abs(left.x - right.x) > 0.5
    return bool(level and mouth.y - (left.y + right.y) / 2 > 0.3 and abs(mouth.x) < 0.25)


def test_only_faces_have_two_level_eyes_above_a_mouth() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        face = face_layout(rng)
        assert is_face(face)
        assert not any(is_face(maker(rng, face)) for maker in NO_FACE_LAYOUTS.values())


@pytest.mark.parametrize("kind", LOOKALIKES)
def test_every_lookalike_can_be_drawn_at_any_size(kind: str) -> None:
    rng = np.random.default_rng(1)
    for size in (8.0, 37.0, 200.0):
        name, sprite = draw_lookalike(rng, size, kind)
        _, _, w, h = sprite.box
        assert name == kind and np.isfinite(sprite.colours).all()
        assert 0.6 * size < np.sqrt(w * h) < 1.15 * size + 1


def test_every_picture_has_lookalikes_and_still_lifes_nothing_else(
    scenes: list[face_scene.FaceScene],
) -> None:
    assert all(scene.faces and scene.lookalikes for scene in scenes)
    still = [render_face_scene(np.random.default_rng(k), SCENES, STILL_LIFE) for k in range(3)]
    assert all(scene.lookalikes and not scene.faces for scene in still)
    kinds = {kind for scene in [*scenes, *still] for kind, _ in scene.lookalikes}
    assert kinds == set(LOOKALIKES)
    for scene in scenes:
        faces = {face.box for face in scene.faces}
        assert not faces & {box for _, box in scene.lookalikes}


def auc(faces: np.ndarray, others: np.ndarray) -> float:
    """Chance that a face has the larger value."""
    larger = (faces[:, None] > others).mean() + 0.5 * (faces[:, None] == others).mean()
    return float(larger)


def test_size_place_and_colour_tell_nothing_and_features_do(
    scenes: list[face_scene.FaceScene],
) -> None:
    rows: dict[bool, list[list[float]]] = {True: [], False: []}
    for scene in scenes:
        height, width = scene.image.shape[:2]
        lab = cv2.cvtColor(scene.image, cv2.COLOR_BGR2Lab).astype(float)
        boxes = [(True, face.box) for face in scene.faces]
        for face, (x, y, w, h) in boxes + [(False, box) for _, box in scene.lookalikes]:
            patch = lab[y : y + h, x : x + w]
            grid = cv2.resize(patch[..., 0], (20, 20), interpolation=cv2.INTER_AREA)
            # The band of the eyes against the cheeks below and the forehead above it.
            eyes = grid[7:11, [4, 5, 6, 13, 14, 15]].mean()
            around = np.concatenate([grid[11:14, 3:17].ravel(), grid[5, 3:17]]).mean()
            colour = patch.reshape(-1, 3).mean(axis=0)
            place = [(x + w / 2) / width, (y + h / 2) / height]
            rows[face].append([np.sqrt(w * h), w / h, *place, *colour, around - eyes])
    faces, others = (np.array(rows[kind]) for kind in (True, False))
    assert len(faces) > 200 and len(others) > 200
    telling = [auc(f, o) for f, o in zip(faces.T, others.T)]
    names = ["size", "shape", "x", "y", "lightness", "a", "b"]
    for name, value in zip(names, telling):
        assert 0.38 < value < 0.62, f"{name} tells faces with {value:.2f}"
    assert telling[-1] > 0.8


def test_sizes_are_log_uniform_and_mostly_small() -> None:
    settings = FaceSceneSettings()
    rng = np.random.default_rng(0)
    in_scenes = [p for _ in range(150) for p in face_scene._scene(rng, settings, 640, 480, True)]
    in_crowds = [p for _ in range(60) for p in face_scene._crowd(rng, settings, 640, 480)]
    logs = np.log([plan.size_px for plan in in_scenes])
    span = (logs - np.log(8)) / np.log(384 / 8)
    # A little less than uniform at the large end, for which there is not always room.
    shares = np.histogram(span, 4, (0, 1))[0] / len(span)
    assert shares.sum() == pytest.approx(1) and (shares > 0.15).all() and (shares < 0.33).all()
    sizes = np.array([plan.size_px for plan in in_crowds])
    assert sizes.min() >= 0.6 * 8 and np.mean(sizes < 32) > 0.7 and np.mean(sizes < 8) < 0.06
    for plans in (in_scenes, in_crowds):
        assert 0.45 < np.mean([plan.is_face for plan in plans]) < 0.55


def face_of(cover: slice, blur_px: float = 0.0, x: int = 30) -> face_scene.Face:
    """An upright face of 60 px on a canvas, with some of its columns covered."""
    rng = np.random.default_rng(12)
    head = draw_head(rng, 60)
    while head.sprite.shown.sum() < 0.99 * head.sprite.core.sum() or abs(head.roll_deg) > 20:
        head = draw_head(rng, 60)
    canvas, sprite = Canvas(np.zeros((200, 200, 3), np.float32)), head.sprite
    bx, by, w, h = sprite.box
    corner = (x - bx, 60 - by)
    number = canvas.paint(sprite.colours, sprite.alpha, *corner, 0.0, sprite.core)
    patch = np.zeros((h, w), np.float32)
    patch[:, cover] = 1
    canvas.paint(np.zeros((h, w, 3), np.float32), patch, x, 60, 0.0)
    plan = face_scene._Plan(60.0, True)
    thing = face_scene._Placed(plan, head, sprite, *corner, number, blur_px)
    light = face_scene._Light(0.0, 0.2)
    return face_scene._face(canvas, thing, head, light, 0.0, FaceSceneSettings())


def test_attributes_are_true_of_the_drawing() -> None:
    clear = face_of(slice(0, 0))
    assert (clear.blur, clear.invalid, clear.occlusion, clear.illumination) == (0, 0, 0, 0)
    assert face_of(slice(0, 12)).occlusion == 1
    half = face_of(slice(0, 30))
    assert (half.occlusion, half.invalid, half.box) == (2, 0, clear.box)
    assert face_of(slice(0, 46)).invalid == 1
    assert [face_of(slice(0, 0), 60 * share).blur for share in (0.03, 0.06, 0.1)] == [0, 1, 2]
    assert face_of(slice(0, 0), 60 * 0.15).invalid == 1
    cut = face_of(slice(0, 0), x=-20)
    assert cut.box[0] == 0 and cut.box[2] == clear.box[2] - 20 and cut.occlusion == 2


def test_all_attributes_occur(scenes: list[face_scene.FaceScene]) -> None:
    faces = [face for scene in scenes for face in scene.faces]
    assert {face.blur for face in faces} == {face.occlusion for face in faces} == {0, 1, 2}
    for name in ("expression", "illumination", "invalid", "pose"):
        share = np.mean([getattr(face, name) for face in faces])
        assert 0 < share < 0.4, name
    assert all(face.invalid for face in faces if max(face.box[2:]) < 6)


def test_the_core_of_a_thing_is_what_must_be_seen() -> None:
    canvas = Canvas(np.zeros((50, 50, 3), np.float32))
    square, core = np.ones((10, 10), np.float32), np.zeros((10, 10), bool)
    core[:, :5] = True
    number = canvas.paint(np.ones((10, 10, 3), np.float32), square, 20, 20, 0.6, core)
    assert canvas.fits(square, 25, 20, 1.0)  # covers what is not of the core
    assert not canvas.fits(square, 22, 20, 1.0)  # leaves 2 of its 5 columns
    assert canvas.fits(square, -5, 0, 1.0, core[:, ::-1]) and not canvas.fits(
        square, -5, 0, 0.1, core
    )
    canvas.paint(np.ones((10, 10, 3), np.float32), square, 24, 20, 0.0)
    owned = canvas.owned(number)
    assert owned[:, :4].all() and not owned[:, 4:].any()


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--openimages"], ["--fine"], ["--classes", "3"], ["--test-dev", "3"]),
        *(["--sizes", "6", "90"], ["--sizes", "90", "20"], ["--long-side", "32"]),
        ["--train", "0", "--val", "0", "--test", "0"],
    ],
)
def test_settings_that_do_not_fit_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tool.main([str(tmp_path / "x"), "--faces", *arguments]) == ConfigError.exit_code
    assert arguments[0] in (error := capsys.readouterr().err) or "cannot use this value" in error
    assert not (tmp_path / "x").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = "--faces --train 2 --val 1 --test 1 --long-side 128 --sizes 10 40 --seed 2 --workers 1"
    arguments = [str(tmp_path / "x"), *flags.split()]
    assert tool.main(arguments) == 0 and "2 train, 1 val, 1 test" in capsys.readouterr().out
    faces = read_text(tmp_path / "x" / "wider_face_split" / "wider_face_train_bbx_gt.txt")
    assert all((rows[:, 2:4] < 60).all() for rows in faces.values())
    assert tool.main(arguments) == 0 and "was there already" in capsys.readouterr().out


def test_the_shipped_picture_of_faces_is_the_generators(tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "data" / "demo" / "faces.jpg"
    assert shipped.stat().st_size < 150_000
    assert tool.main(["--faces", "--demo", str(tmp_path / "faces.jpg")]) == 0
    image, again = (cv2.imread(str(p)).astype(int) for p in (shipped, tmp_path / "faces.jpg"))
    assert image.shape == again.shape == (480, 640, 3)
    assert np.abs(image - again).mean() < 3
