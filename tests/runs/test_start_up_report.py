"""The start-up report: short, exact, and with advice where something is wrong."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from sniper.chips.account import account_of
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.sampler import make_epoch
from sniper.config import load_config
from sniper.data.account import Intake
from sniper.data.record import Record
from sniper.runs.plan import train_plan
from sniper.runs.resolve import scales_by_rule
from sniper.runs.start_up_report import (
    MAX_LINES,
    level_name,
    log_start_up,
    range_text,
    side_text,
    start_up_report,
)

GOOD = (
    *("gpus", "cpu", "TRAIN.USE_NEG_CHIPS", "False", "TRAIN.BATCH_IMAGES", "4"),
    *("TRAIN.end_epoch", "3"),
)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """A machine for two contexts of one thread."""
    monkeypatch.setattr("sniper.runs.device_report.usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def records_of(count=40, per_image=8, low=8, high=400, seed=0):
    rng = np.random.default_rng(seed)
    records = []
    for image_id in range(count):
        side = np.exp(rng.uniform(np.log(low), np.log(high), per_image))
        corner = rng.uniform(0, np.maximum(1, [[640, 480]] - side[:, None]))
        end = np.minimum(corner + side[:, None], [639, 479])
        boxes = np.trunc(np.concatenate([corner, end], axis=1)).astype(np.float32)
        ones = np.ones(per_image, np.int32)
        records.append(Record(f"{image_id}.jpg", image_id, 640, 480, False, boxes, ones, ones > 0))
    return records


def report_of(*overrides, records=None, devices=2, workers=1, recipe="sniper_res101_e2e"):
    gpus = ",".join(["cpu"] * devices)
    plan = train_plan(load_config(recipe, [*GOOD, *overrides, "gpus", gpus]))
    records = records_of() if records is None else records
    epoch = make_epoch(records, plan.chips, seed=0, epoch=0, batch_size=4 * devices * workers)
    account = account_of(Intake(epoch.stats.gt), records, epoch, plan.chips)
    return start_up_report(plan, records, epoch.stats, account, workers), epoch.stats


def line(report, start):
    (found,) = [text for text in report.details if text.startswith(start)]
    return found


def test_a_good_run_has_no_warnings():
    report, stats = report_of("TRAIN.BACKGROUND_CHIPS", "1")
    assert report.warnings == ()
    assert len(report.details) == 11
    assert "[3, 1.667, 512] by the 2018 rule for COCO" in line(report, "pyramid")
    assert f"{stats.levels[0].gt_in_range} GT in range" in line(report, "level 0 (x3)")
    assert "sqrt(area) 32 to 150 px" in line(report, "level 1 (x1.667)")
    assert "from 120 px" in line(report, "level 2 (long side 512)")
    assert f"chips: {stats.chips} an epoch" in line(report, "chips")
    assert f"{stats.gt_covered} of {stats.gt} boxes covered" in line(report, "GT")
    assert "objects of other levels; level 1 " in line(report, "never shown in this epoch: level 0")
    assert "anchors of 32 to 384 px" in line(report, "anchors")


def test_batch_and_learning_rate():
    report, stats = report_of()
    batch = line(report, "batch")
    assert "8 chips an update = 2 device(s) x 4 (TRAIN.BATCH_IMAGES);" in batch
    assert f"{stats.samples // 8} updates an epoch, 3 epochs" in batch
    rate = line(report, "lr 0.015")
    assert "after 1000 updates from 0.0005, wd 0.0001" in rate
    # Two of the eight gradients that the recipe was made for, summed.
    assert "sum of 2 gradient(s)" in rate
    assert "their mean with lr 0.03 and wd 5e-05" in rate
    assert "assumes 8 (TRAIN.REFERENCE_REPLICAS): leave TRAIN.lr" in rate
    assert "here 0.25 of it" in rate
    assert "With k x 4 BATCH_IMAGES set TRAIN.lr to k x 0.015" in rate


@pytest.mark.parametrize(
    ("devices", "threads", "overrides", "expected"),
    [
        (1, 2, (), "1 CPU context with 2 threads; a batch norm goes over 4 chips"),
        (
            2,
            1,
            (),
            "2 CPU contexts with 1 thread each; a batch norm goes over 4 chips of a context",
        ),
        (1, 1, ("network.BN_MODE", "frozen"), "1 CPU context with 1 thread; batch norms keep"),
    ],
)
def test_devices_threads_and_batch_norms(monkeypatch, devices, threads, overrides, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    report, _ = report_of(*overrides, devices=devices)
    assert line(report, "runs on").startswith(f"runs on {expected}")
    assert line(report, "runs on") in report.lines


def test_networks_without_batch_norms(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    report, _ = report_of(devices=1, recipe="ssh_vgg16_wider")
    assert line(report, "runs on") == "runs on 1 CPU context with 2 threads"


@pytest.mark.parametrize(
    ("devices", "threads", "fix"),
    [
        (1, 2, None),
        (2, 1, None),
        (1, 4, "4 threads share 2 core(s), and wait for each other: set OMP_NUM_THREADS to 2"),
        (2, 2, "set OMP_NUM_THREADS to 1, or gpus to cpu: one context with all threads is faster"),
        (4, 1, "set OMP_NUM_THREADS to 1, or gpus to cpu"),
    ],
)
def test_more_threads_than_cores(monkeypatch, devices, threads, fix):
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    report, _ = report_of("TRAIN.BACKGROUND_CHIPS", "1", devices=devices)
    found = [text for text in report.warnings if "threads share" in text]
    assert len(found) == (fix is not None)
    assert fix is None or fix in found[0]


def test_accumulation_and_workers_count_like_devices():
    overrides = ("TRAIN.ACCUMULATION_STEPS", "2")
    report, stats = report_of(*overrides, workers=3)
    batch = line(report, "batch")
    assert "48 chips an update = 2 device(s) x 4 (TRAIN.BATCH_IMAGES) x 2 batches" in batch
    assert "x 3 workers" in batch
    assert f"{stats.samples // 48} updates an epoch" in batch
    assert "sum of 12 gradient(s)" in line(report, "lr")
    assert "here 1.5 of it" in line(report, "lr")


def test_averaged_gradients_have_a_rule_of_their_own():
    overrides = ("TRAIN.GRADIENT_REDUCTION", "mean", "TRAIN.REFERENCE_REPLICAS", "4")
    report, _ = report_of(*overrides)
    rate = line(report, "lr 0.015")
    assert "mean of 2 gradient(s)" in rate and "does not grow with them" in rate
    # The linear rule: half the replicas that the recipe assumes, half the rate.
    assert "assumes 4 (TRAIN.REFERENCE_REPLICAS): by the linear rule 2 take TRAIN.lr 0.0075" in rate
    assert "written for a sum, as in 2018, takes 4 x its lr and 1/4 of its wd here" in rate


def test_the_box_loss_is_an_exception_where_its_divisor_is_a_constant():
    def excepted(*overrides, recipe="sniper_res101_e2e"):
        return "box head's box loss" in line(report_of(*overrides, recipe=recipe)[0], "lr")

    assert excepted()
    assert not excepted("TRAIN.GRADIENT_REDUCTION", "mean")
    assert excepted("TRAIN.GRADIENT_REDUCTION", "mean", "TRAIN.bbox_loss_divisor", "900")
    assert not excepted(recipe="sniper_mobilenetv2_e2e")


def test_explicit_scales_are_not_called_the_rule():
    report, _ = report_of("TRAIN.SCALES", "[(1400, 2000), (800, 1280), (-1, 512)]")
    assert line(report, "pyramid").endswith("[(1400, 2000), (800, 1280), (-1, 512)] as configured")
    assert "level 0 (short side 1400, long at most 2000)" in "\n".join(report.details)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("TRAIN.VALID_RANGES", "[(-1,30),(60,110),(200,-1)]"), "let neighbouring"),
        (("TRAIN.VALID_RANGES", "[(-1,300),(200,400),(390,-1)]"), "longer than a chip"),
        (("TRAIN.MAX_GT", "2"), "hold more than TRAIN.MAX_GT 2 boxes"),
        (("network.ANCHOR_SCALES", "[24]"), "change network.ANCHOR_SCALES"),
        (("TRAIN.SCALES", "[0.5, 0.3, 128.0]"), "below 10 px in every chip"),
        ((), "no negative chips at levels 0, 1: 72%, 54% of the images there, with "),
        ((), "as background; expect false alarms there; --set TRAIN.USE_NEG_CHIPS mine"),
        (("TRAIN.USE_NEG_CHIPS", "True"), "gave no negative chip at levels 0, 1"),
        (
            ("TRAIN.USE_NEG_CHIPS", "True", "TRAIN.MIN_FALSE_ALARMS", "[25, 10]"),
            "lower TRAIN.MIN_FALSE_ALARMS (now 25 and 10;",
        ),
    ],
)
def test_warnings_say_what_to_change(overrides, part):
    report, _ = report_of(*overrides)
    assert any(part in warning for warning in report.warnings), report.warnings
    assert len(report.lines) + len(report.warnings) <= MAX_LINES


def test_never_more_than_fifteen_lines():
    scales = "[3.0, 2.5, 2.0, 1.5, 1.2, 1.0, 0.8, 512.0]"
    ranges = "[(-1,9),(20,21),(30,31),(40,41),(50,51),(60,61),(70,71),(300,-1)]"
    report, _ = report_of(
        *("TRAIN.SCALES", scales, "TRAIN.VALID_RANGES", ranges, "TRAIN.MAX_GT", "1"),
        *("network.ANCHOR_SCALES", "[40]", "TRAIN.USE_NEG_CHIPS", "True"),
    )
    assert len(report.lines) + len(report.warnings) == MAX_LINES
    assert any(text.startswith("levels 4 to 7: ") for text in report.details)


def test_uncovered_boxes_are_counted_by_reason():
    report, stats = report_of("TRAIN.VALID_RANGES", "[(-1,30),(60,110),(200,-1)]")
    text = line(report, "GT")
    for fate, count in stats.gt_uncovered.items():
        if count:
            assert f"{count} (" in text
            assert fate.text in text


def test_one_image_without_trained_boxes():
    tiny = [records_of(1, per_image=1, low=1, high=2)[0]]
    report, _ = report_of(records=tiny)
    assert any("0 boxes looked at" in text for text in report.details)


def test_everything_goes_to_the_log(caplog):
    plan = train_plan(load_config("sniper_res101_e2e", [*GOOD, "TRAIN.MAX_GT", "2", "gpus", "cpu"]))
    records = records_of()
    epoch = make_epoch(records, plan.chips, seed=0, epoch=0, batch_size=4)
    account = account_of(Intake(epoch.stats.gt), records, epoch, plan.chips)
    with caplog.at_level(logging.DEBUG, logger="sniper"):
        log_start_up(plan, records, epoch.stats, account)
    assert "pyramid: TRAIN.SCALES" in caplog.text
    shown = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert not any("pyramid: TRAIN.SCALES" in record.message for record in shown)
    assert [r.levelname for r in caplog.records].count("WARNING") == 2


def test_names_of_levels_and_ranges():
    assert [level_name((3.0, 512.0), i) for i in (0, 1)] == ["x3", "long side 512"]
    pairs = ((1400, 2000), (800, -1), (-1, 512))
    assert [level_name(pairs, i) for i in range(3)] == [
        "short side 1400, long at most 2000", "short side 800", "long side 512",
    ]  # fmt: skip
    ranges = ((-1, 80), (32, 150), (120, -1))
    assert [range_text(ranges, i) for i in range(3)] == ["below 80", "32 to 150", "from 120"]
    assert range_text(((-1, -1),), 0) == "all"
    limited = ChipSettings((2.0, 1.0, 512.0), ranges, side_limits=(90, 200, -1))
    assert [side_text(limited, i) for i in range(3)] == [
        ", no side of 90 px or more",
        " or a side of 90 px and more, no side of 200 px or more",
        " or a side of 200 px and more",
    ]
    assert side_text(ChipSettings((2.0, 1.0, 512.0), ranges), 1) == ""
    assert not scales_by_rule(load_config("sniper_mobilenetv2_toy"))
    assert scales_by_rule(load_config("sniper_res101_e2e"))


def test_the_short_report_has_no_word_of_the_trade():
    report, stats = report_of("TRAIN.USE_NEG_CHIPS", "False")
    text = "\n".join(report.lines)
    assert f"40 with {stats.gt} objects of 80 class(es)" in text
    assert "chips, the 512x512 px windows that are trained" in text
    assert f"images at x3: objects below 80 px in size, {stats.levels[0].positive} chips" in text
    assert f"annotations: {stats.gt} read, " in text
    assert f"updates: {stats.samples // 8} an epoch, of 8 chips each" in text
    for word in ("GT", "anchor", "lattice", "IoU", "sqrt", "covered", "wd "):
        assert word not in text
