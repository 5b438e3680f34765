"""Pictures of an evaluation: what must be in them, and cases that must not break them."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.evaluation import PrecisionRecall
from sniper.evaluation.analysis import ConfusionMatrix
from sniper.vis.confusion_matrix import plot_confusion
from sniper.vis.error_plots import COLOURS, ErrorsView, marks_of, plot_errors
from sniper.vis.figures import png_bytes
from sniper.vis.precision_recall import plot_precision_recall


def make_curves(classes):
    rng = np.random.default_rng(0)
    precision = 1 - np.sort(rng.random((3, 101, classes)), axis=1)
    precision[:, :, 1::4] = np.nan
    names = tuple(f"class {i}" for i in range(classes))
    return PrecisionRecall(np.linspace(0, 1, 101), names, precision)


def texts(axes):
    legend = axes.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


@pytest.mark.parametrize(("classes", "named"), [(1, 1), (2, 1), (12, 9), (80, 8)])
def test_curves_of_the_mean_and_of_classes_with_objects(classes, named):
    curves = make_curves(classes)
    figure = plot_precision_recall(curves, "COCO_x, boxes")
    mean, each = figure.axes
    assert len(mean.lines) == 3
    np.testing.assert_array_equal(mean.lines[0].get_ydata(), curves.mean[0])
    assert f"AP {100 * np.nanmean(curves.precision[2]):.1f}" in texts(mean)[2]
    known = int((~np.isnan(curves.precision[0, 0])).sum())
    assert len(each.lines) == known and len(texts(each)) == named
    assert f"{known} classes" in each.get_title(loc="left")
    assert png_bytes(figure) == png_bytes(plot_precision_recall(curves, "COCO_x, boxes"))


def test_curves_without_any_object():
    curves = make_curves(3)
    curves.precision[:] = np.nan
    figure = plot_precision_recall(curves, "COCO_x, boxes")
    assert "AP -" in texts(figure.axes[0])[0]
    assert png_bytes(figure)
    assert curves.as_dict()["0.50"] == [None] * 101


def make_view(detections=500, objects=60):
    rng = np.random.default_rng(1)
    causes = ("class", "localisation", "both", "duplicate", "background", "missed")
    return ErrorsView(
        heading="COCO_x",
        ap50=0.5,
        gains={name: 0.01 * index for index, name in enumerate(causes)},
        counts={name: index for index, name in enumerate(causes)},
        score=0.5,
        scores=np.append(rng.random(detections), [0.0, 1.0])[:detections],
        verdicts=rng.integers(0, 6, detections),
        object_sides=np.exp(rng.uniform(0, 6, objects)),
        object_states=rng.integers(0, 4, objects),
        thresholds=np.linspace(0, 1, 11),
        precision=np.append(np.linspace(0.1, 1, 10), np.nan),
        recall=np.linspace(1, 0, 11),
        best_score=0.4,
    )


def test_errors_show_every_cause_and_all_detections():
    view = make_view()
    figure = plot_errors(view)
    causes, numbers, shares, sizes, _ = figure.axes
    lengths = [bar.get_width() for bar in causes.patches]
    assert lengths == pytest.approx([100 * gain for gain in view.gains.values()][::-1])
    assert [text.get_text().split()[0] for text in causes.texts] == [f"{x:.1f}" for x in lengths]
    assert sum(bar.get_height() for bar in numbers.patches) == 500
    heights = np.array([bar.get_height() for bar in shares.patches]).reshape(6, -1)
    np.testing.assert_allclose(heights.sum(axis=0), 100)
    assert texts(numbers) == list(COLOURS)[:6]
    assert sum(int(text.split(": ")[1].split()[0]) for text in texts(sizes)) == 60
    assert png_bytes(figure)


@pytest.mark.parametrize(("detections", "objects"), [(0, 60), (500, 0), (1, 1)])
def test_errors_with_little_to_show(detections, objects):
    assert png_bytes(plot_errors(make_view(detections, objects)))


def test_names_have_marks():
    assert marks_of(["right", "background"]).tolist() == [0, 5]


@pytest.mark.parametrize("classes", [1, 10, 80])
def test_confusions_leave_out_unused_classes_and_write_numbers_where_there_is_room(classes):
    rng = np.random.default_rng(2)
    counts = rng.poisson(3, (classes + 1, classes + 1))
    counts[0, 0] = 0
    if classes > 1:
        counts[3], counts[:, 3] = 0, 0
    names = ("__background__", *(f"a rather long class name {i}" for i in range(classes)))
    figure = plot_confusion(
        ConfusionMatrix.of_counts(names, counts, 0.5), "COCO_x, score 0.5 or more"
    )
    (axes,) = figure.axes
    shown = classes + 1 - (classes > 1)
    assert axes.images[0].get_array().shape == (shown, shown)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[-1] == "nothing there" and len(labels) == shown
    assert len(axes.texts) == (0 if classes == 80 else np.count_nonzero(counts))
    assert png_bytes(figure)


def test_confusions_without_any_detection_or_object():
    nothing = np.zeros((2, 2), np.int64)
    matrix = ConfusionMatrix.of_counts(("__background__", "cat"), nothing, 0.5)
    assert png_bytes(plot_confusion(matrix, "COCO_x"))


def test_of_thousands_of_classes_those_with_the_most_errors_are_shown():
    names = ("__background__", *(f"c{i}" for i in range(1, 3131)))
    right = np.arange(1, 1001)
    wrong = np.arange(2000, 2300)
    pairs = np.array([*zip(right, right), *zip(wrong, np.zeros_like(wrong))])
    times = np.array([9] * 1000 + [1 + i % 3 for i in range(300)])
    figure = plot_confusion(ConfusionMatrix(names, pairs, times, 0.5), "COCO_x")
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 201 and labels[-1] == "nothing there"
    expected = [f"c{2000 + i}" for i in range(300) if i % 3]
    assert labels[:-1] == expected
    assert any("200 classes with the most errors, of 1300" in t.get_text() for t in figure.texts)
