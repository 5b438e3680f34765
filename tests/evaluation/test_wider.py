"""The metric of WIDER FACE: a slow reference, official lists, published curves, result files."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.detections import DetectionTable
from sniper.data.matlab import read_matlab_arrays
from sniper.data.record import image_record
from sniper.data.wider import read_wider_truth
from sniper.data.wider_truth import LEVELS, WiderTruth
from sniper.errors import DataError
from sniper.evaluation import average_precision, protocol_of
from sniper.evaluation.wider import FoundFaces, evaluate_levels
from sniper.evaluation.wider_files import write_results
from sniper.evaluation.wider_protocol import evaluate_wider
from sniper.inference.results import report_detections
from sniper.tools.evaluate import main
from sniper.vis.precision_recall import plot_named_curves


def iou(a, b):
    """Boxes x y width height whose sides have one px more."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]) + 1
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] + 1) * (a[3] + 1) + (b[2] + 1) * (b[3] + 1) - width * height
    return width * height / union


def slow_ap(images):
    """By the letter of the protocol: an image and a threshold at a time.

    Args:
        images: for each (boxes, which of them count, detections [x y w h score]).
    """
    scores = [d[4] for _, _, detections in images for d in detections]
    low, high = min(scores), max(scores)
    counts = np.zeros((1000, 2))
    total = sum(sum(kept) for _, kept, _ in images)
    for boxes, kept, detections in images:
        if not boxes or not detections:
            continue
        rows = sorted(detections, key=lambda d: -d[4])
        is_proposal = [True] * len(rows)
        found, number_found = set(), []
        for place, row in enumerate(rows):
            overlaps = [iou(row, box) for box in boxes]
            best = overlaps.index(max(overlaps))
            if overlaps[best] >= 0.5:
                if not kept[best]:
                    is_proposal[place] = False
                else:
                    found.add(best)
            number_found.append(len(found))
        for k in range(1, 1001):
            above = [p for p, d in enumerate(rows) if (d[4] - low) / (high - low) >= 1 - k / 1000]
            if above:
                counts[k - 1, 0] += sum(is_proposal[: above[-1] + 1])
                counts[k - 1, 1] += number_found[above[-1]]
    points = [(f / total, f / p if p else 0.0) for p, f in counts]
    area, before = 0.0, 0.0
    for place, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[place:])
        before = recall
    return area


def random_images(rng):
    images = []
    for _ in range(rng.integers(4, 9)):
        boxes = []
        for _ in range(rng.integers(0, 8)):
            boxes.append([*rng.integers(0, 60, 2).tolist(), *rng.integers(1, 30, 2).tolist()])
        if boxes and rng.random() < 0.5:
            boxes.append(boxes[0])  # equal boxes: the first is found
            boxes.append([5, 5, -2, 3])  # inverted ones are in the official files
        kept = [bool(rng.random() < 0.6) for _ in boxes]
        detections = []
        for box in boxes:
            for _ in range(rng.integers(0, 4)):
                moved = np.round(np.array(box) + rng.normal(0, 2, 4)).tolist()
                detections.append([*moved[:2], max(moved[2], 1), max(moved[3], 1)])
        for _ in range(rng.integers(0, 5)):
            detections.append([*rng.integers(0, 60, 2).tolist(), *rng.integers(1, 30, 2).tolist()])
        # Few different scores: many are equal, and some lie on a threshold.
        images.append((boxes, kept, [[*d, int(rng.integers(0, 41)) / 40] for d in detections]))
    images.append(([[1, 1, 9, 9]], [True], [[1, 1, 9, 9, 0.0], [30, 30, 4, 4, 1.0]]))
    return images


def flat(images):
    boxes = np.array([b for of_image, _, _ in images for b in of_image], np.float64).reshape(-1, 4)
    kept = np.array([k for _, of_image, _ in images for k in of_image], bool)
    rows = np.array([d for *_, of_image in images for d in of_image], np.float64).reshape(-1, 5)
    ends = [np.cumsum([0, *(len(i[k]) for i in images)]) for k in (0, 2)]
    return boxes, ends[0], kept, FoundFaces(ends[1], rows[:, :4], rows[:, 4])


def test_average_precision_equals_a_slow_reference():
    rng = np.random.default_rng(7)
    for _ in range(6):
        images = random_images(rng)
        boxes, offsets, kept, found = flat(images)
        fast = evaluate_levels(boxes, offsets, {"x": kept}, found)["x"]
        assert fast.ap == pytest.approx(slow_ap(images), abs=1e-6)


def set_of(boxes, kept, size=(100, 80)):
    """A set in memory whose images are e/0, e/1, ..."""
    records = tuple(image_record(f"e/{i}.jpg", i, *size) for i in range(len(boxes)))
    offsets = np.cumsum([0, *map(len, boxes)])
    joined = np.array([b for of_image in boxes for b in of_image], np.float64).reshape(-1, 4)
    truth = WiderTruth(
        tuple(f"e/{i}.jpg" for i in range(len(boxes))), np.arange(len(boxes)), offsets, joined,
        {level: np.array(flags, bool) for level, flags in kept.items()},
    )  # fmt: skip
    object_ids = [vars(r).update(file_id=f"e/{r.image_id}.jpg") for r in records]
    assert len(object_ids) == len(boxes)
    return Dataset("WIDER_val", "val", (BACKGROUND, "face"), (0, 1), records, "text", True, truth,
                   protocol="wider")  # fmt: skip


def faces(offsets, rows):
    rows = np.array(rows, np.float64).reshape(-1, 5)
    return FoundFaces(np.array(offsets), rows[:, :4], rows[:, 4])


FLAGS = {"easy": [1, 0, 0], "medium": [1, 1, 0], "hard": [1, 1, 0], "all": [1, 1, 1]}
TRUE = [[[10, 10, 20, 20], [50, 10, 20, 20]], [[5, 5, 9, 9]], []]


def test_faces_that_do_not_count_are_neither_right_nor_wrong():
    dataset = set_of(TRUE, FLAGS)
    found = faces(
        [0, 3, 4, 5],
        [[10, 10, 20, 20, 0.9], [10, 10, 20, 20, 0.8], [50, 10, 20, 20, 0.7], [5, 5, 9, 9, 0.6],
         [0, 0, 9, 9, 0.5]],
    )  # fmt: skip
    report = evaluate_wider(dataset, found)
    curves = report.levels
    # Easy: right, then the repetition is wrong; what is on other faces does not count.
    assert report.easy == 1.0 and curves["easy"].precision[-1] == 0.5
    assert curves["hard"].precision[-1] == pytest.approx(2 / 3)
    assert report.hard == report.ap == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert report.all_faces == pytest.approx(1 / 3 + 2 / 3 * 3 / 4)
    # An image without boxes is left out.
    assert report.detections_without_boxes == 1
    text = report.table()
    assert "1 detections in images without any box" in text and "IoU >= 0.5" in text
    content = json.loads(json.dumps(report.as_dict()))
    assert content["levels"]["hard"] == {"faces": 2, "images": 1, "ap": report.hard}
    assert content["decides"] == "hard" and content["rules"].startswith("IoU >= 0.5")
    curve = content["precision_recall"]
    assert curve["recall"][50] == 0.5 and curve["hard"][50] == 1 and curve["hard"][51] == 0.6667


def test_without_lists_all_faces_decide():
    dataset = set_of(TRUE, {"all": [1, 1, 0]})
    report = evaluate_wider(dataset, faces([0, 1, 1, 1], [[10, 10, 20, 20, 0.9]]))
    assert report.ap == report.all_faces == 0.5 and np.isnan(report.hard)
    assert "no lists of easy, medium and hard faces" in report.table()
    assert report.as_dict()["hard"] is None and report.as_dict()["decides"] == "all"
    nothing = evaluate_wider(dataset, faces([0, 0, 0, 0], []))
    assert nothing.ap == 0 and nothing.levels["all"].recall[-1] == 0
    objects = protocol_of(dataset).objects(dataset)
    assert objects.images.tolist() == [0, 0, 1] and objects.ignored.tolist() == [False, False, True]


def test_a_part_of_a_set_counts_its_own_faces():
    dataset = set_of(TRUE, FLAGS)
    part = Dataset(**{**vars(dataset), "records": dataset.records[1:2]})
    report = evaluate_wider(part, faces([0, 1], [[5, 5, 9, 9, 0.9]]))
    assert report.all_faces == 1 and report.levels["hard"].faces == 0 and np.isnan(report.hard)


def table_of(rows, counts):
    offsets = np.cumsum([0, *counts]).astype(np.int64)
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return DetectionTable(offsets, rows, np.ones(len(rows), np.int32))


def test_result_files_are_written_and_read_back(tmp_path):
    dataset = set_of(TRUE, FLAGS)
    protocol = protocol_of(dataset)
    table = table_of(
        [[10, 10, 29, 29, 0.9], [49.6, 10.4, 70.2, 30.8, 0.75], [5, 5, 13, 13, 0.5]], [2, 1, 0]
    )
    stale = protocol.results_path(tmp_path, dataset) / "other" / "old.txt"
    stale.parent.mkdir(parents=True)
    stale.write_text("old\n0\n")
    protocol.write(tmp_path, dataset, table)
    assert not stale.exists() and [p.name for p in tmp_path.iterdir()] == ["detections_val_results"]
    folder = tmp_path / "detections_val_results" / "e"
    assert (folder / "0.txt").read_text().splitlines() == [
        "e/0.jpg", "2", "10 10 20 20 0.89999998", "49 10 22 21 0.75000000",
    ]  # fmt: skip
    assert (folder / "2.txt").read_text() == "e/2.jpg\n0\n"
    back = protocol.read(folder.parent, dataset)
    assert back.offsets.tolist() == table.offsets.tolist()
    # Corners are truncated, so that the end of a box is that of its last whole px.
    assert back.rows[1, :4].tolist() == [49, 10, 70, 30]
    whole = protocol.evaluate(dataset, table)
    report, left_out = protocol.evaluate_files(dataset, folder.parent, leave_out_unknown=False)
    assert left_out == 0 and report.as_dict() == {**whole.as_dict(), "settings": {}}


def test_a_test_run_says_how_it_detected_and_files_say_it_again(tmp_path, caplog):
    caplog.set_level("INFO")
    dataset = set_of(TRUE, FLAGS)
    table = table_of([[10, 10, 29, 29, 0.9], [5, 5, 13, 13, 0.5]], [1, 1, 0])
    settings = {"mode": "single", "scales": ["1200x1600"], "NMS": "IoU 0.3"}
    report = report_detections(tmp_path, dataset, table, settings=settings)
    assert "measured with mode single; scales 1200x1600; NMS IoU 0.3" in caplog.text
    content = json.loads((tmp_path / "detections_val_report.json").read_text())
    assert content["ap"] == content["hard"] == report.ap and content["settings"] == settings
    folder = tmp_path / "detections_val_results"
    again, _ = protocol_of(dataset).evaluate_files(dataset, folder, leave_out_unknown=False)
    assert again.settings == settings and again.ap == report.ap


@pytest.fixture
def truth(tmp_path):
    """Annotations of two images without lists, and a folder for results."""
    text = "e/a.jpg\n2\n10 10 20 20\n50 10 20 20\nf/b.jpg\n1\n5 5 9 9\n"
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "wider_face_val_bbx_gt.txt").write_text(text)
    results = tmp_path / "results"
    for name, lines in (("e/a", ["10 10 20 20 .9", "50.5 9.5 20 20 0.8 "]), ("f/b", [])):
        path = results / f"{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join([name, str(len(lines)), *lines, ""]))
    return tmp_path / "truth"


def run(truth, *more):
    out = truth.parent / "report.json"
    names = ["--protocol", "wider", "--truth", str(truth), "--results",
             str(truth.parent / "results"), "--out", str(out), *more]  # fmt: skip
    return main(names), out


def test_sniper_evaluate(truth, capsys):
    code, out = run(truth)
    shown = capsys.readouterr().out
    assert code == 0 and json.loads(out.read_text())["all"] == pytest.approx(2 / 3)
    assert "no lists" in shown and "detector: scales and NMS not known" in shown
    # A test of the project says beside its results how it detected.
    settings = {"mode": "pyramid", "scales": ["1400x2000", "800x1280"], "NMS": "hard, IoU 0.3"}
    (truth.parent / "detections_val_report.json").write_text(json.dumps({"settings": settings}))
    code, out = run(truth)
    assert "detector: mode pyramid; scales 1400x2000, 800x1280; NMS hard" in capsys.readouterr().out
    assert json.loads(out.read_text())["settings"] == settings
    picture = cv2.imread(str(out.with_name("report_precision_recall.png")))
    assert picture is not None and (picture != 255).any()


def test_the_picture_has_the_curves_of_all_levels_with_their_points():
    dataset = set_of(TRUE, FLAGS)
    table = table_of([[10, 10, 29, 29, 0.9], [5, 5, 13, 13, 0.5]], [1, 1, 0])
    protocol = protocol_of(dataset)
    report = protocol.evaluate(dataset, table)
    (plot,) = protocol.curves(dataset, replace(report, settings={"NMS": "IoU 0.3"}))
    levels = [level for level in LEVELS if report.levels[level].faces]
    assert len(levels) > 1 and plot.note == "NMS IoU 0.3"
    assert [curve.name for curve in plot.curves] == [
        f"{level}: AP {100 * getattr(report, level):.2f}" for level in levels
    ]
    figure = plot_named_curves(plot.curves, plot.heading, plot.note)
    lines = figure.axes[0].get_lines()
    for line, level in zip(lines, levels):
        curve = report.levels[level]
        points = set(zip(curve.recall.tolist(), curve.precision.tolist()))
        # All that is counted, and not the place where nothing is.
        assert set(zip(*map(np.ndarray.tolist, line.get_data()))) == points - {(0.0, 0.0)}
    texts = [text.get_text() for text in figure.texts]
    assert texts == [plot.heading, "NMS IoU 0.3"]
    # Without lists the one level is all faces; a set without faces has no picture.
    for change in ({"has_lists": False}, {"levels": {}}):
        plots = protocol.curves(dataset, replace(report, **change))
        assert len(plots) == ("has_lists" in change)


def test_what_is_unknown_or_broken_is_told(truth, capsys):
    results = truth.parent / "results"
    good = (results / "e" / "a.txt").read_text()
    for text, said in (
        (good.replace("2\n", "3\n", 1), "line 2"),
        (good.replace(".9", "high"), "line 3"),
        (good.replace(".9", "nan"), "line 3"),
        (good.replace("10 20 20 .9", "10 20 .9"), "line 3"),
        ("e/a\n", "the end of the file"),
    ):
        (results / "e" / "a.txt").write_text(text)
        assert run(truth)[0] == 3
        assert said in capsys.readouterr().err, text
    (results / "e" / "a.txt").write_text(good)
    (results / "e" / "c.txt").write_text("e/c\n1\n1 1 9 9 .5\n")
    assert run(truth)[0] == 3
    assert "e/c.txt (1)" in capsys.readouterr().err
    code, out = run(truth, "--ignore-unknown")
    assert code == 0 and json.loads(out.read_text())["left_out"] == 1
    (results / "e" / "c.txt").unlink()
    (results / "f" / "b.txt").unlink()
    code, out = run(truth)
    assert code == 0 and json.loads(out.read_text())["images_without_result_file"] == 1
    assert "1 images have no result file" in capsys.readouterr().out
    (results / "e" / "a.txt").rename(results / "a.txt")
    assert run(truth)[0] == 3
    assert "no result files of WIDER_val" in capsys.readouterr().err


def test_detections_that_are_not_finite_are_told():
    dataset = set_of(TRUE, FLAGS)
    table = table_of([[1, 1, np.nan, 5, 0.5]], [1, 0, 0])
    with pytest.raises(DataError, match=r"of image e/0\.jpg"):
        protocol_of(dataset).evaluate(dataset, table)


PUBLISHED = {  # area under published curves: easy, medium, hard
    "val/SSH": (0.91922, 0.90735, 0.81401), "test/SSH": (0.92744, 0.91551, 0.84401),
    "val/HR": (0.92571, 0.91048, 0.80605), "val/cms-rcnn": (0.89934, 0.87451, 0.62444),
    "val/ScaleFace": (0.86822, 0.86745, 0.77268),
    "val/multitask-cascade-cnn": (0.84878, 0.82575, 0.59836),
}  # fmt: skip


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_curves_have_their_published_ap(wider_lists, method):
    subset, name = method.split("/")
    end = "_val" if subset == "val" else ""
    for level, ap in zip(LEVELS, PUBLISHED[method]):
        path = wider_lists / "pr_curves" / method / f"wider_pr_info_{name}_{level}{end}.mat"
        precision, recall = read_matlab_arrays(path, ["pr_cruve"])["pr_cruve"].T
        precision = np.nan_to_num(precision)
        found = average_precision(recall, precision, eleven_points=False)
        assert found == pytest.approx(ap, abs=1e-5)


def test_perfect_detections_of_the_official_set(wider_lists, tmp_path, capsys):
    dataset = read_wider_truth(wider_lists, "val")
    truth = dataset.truth
    scores = np.linspace(1, 0.1, len(truth.boxes))
    write_results(tmp_path / "r", dataset, FoundFaces(truth.offsets, truth.boxes, scores))
    out = tmp_path / "report.json"
    names = ["--protocol", "wider", "--truth", str(wider_lists), "--results", str(tmp_path / "r"),
             "--out", str(out)]  # fmt: skip
    assert main(names) == 0
    report = json.loads(out.read_text())
    assert all(report[level] >= 0.9999 for level in LEVELS)
    assert report["levels"]["hard"]["faces"] == 31958
    assert "31958" in capsys.readouterr().out
