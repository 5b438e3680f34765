"""Every annotation is trained, or left out for one reason; copies count with their originals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.chips import ChipSettings, make_epoch
from sniper.chips.account import account_of
from sniper.data import append_flipped
from sniper.data.account import Intake
from sniper.data.record import Record

SETTINGS = ChipSettings(scales=(2.0, 256), valid_ranges=((-1, 40), (60, -1)), chip_size=128)


def record(number, boxes):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    return Record(
        image_path=f"{number}.png",
        image_id=number,
        width=300,
        height=200,
        flipped=False,
        boxes=boxes,
        classes=np.ones(count, np.int32),
        is_gt=np.ones(count, bool),
    )


@st.composite
def box(draw):
    x, y = draw(st.integers(0, 298)), draw(st.integers(0, 198))
    return [x, y, draw(st.integers(x, 299)), draw(st.integers(y, 199))]


@settings(deadline=None)
@given(
    boxes=st.lists(st.lists(box(), max_size=4), min_size=1, max_size=4),
    crowds=st.integers(0, 3),
    mirrored=st.booleans(),
)
def test_read_is_trained_and_left_out(boxes, crowds, mirrored):
    originals = [record(i, of_image) for i, of_image in enumerate(boxes)]
    count = sum(map(len, boxes))
    records = append_flipped(originals) if mirrored else originals
    epoch = make_epoch(records, SETTINGS, seed=1, epoch=0, batch_size=1)
    intake = Intake(count + crowds, {"crowd": crowds})
    account = account_of(intake, records, epoch, SETTINGS)
    assert account.objects == count
    assert account.trained + sum(account.left_out.values()) == account.read == count + crowds
    if not mirrored:
        assert account.trained <= epoch.stats.gt_covered
    as_json = account.to_json()
    assert as_json["trained"] + sum(as_json["left_out"].values()) == as_json["read"]


def test_each_reason_has_its_line():
    # Trained; in the range of no level; below 10 px everywhere; longer than a chip of its level.
    boxes = [[10, 10, 40, 40], [50, 50, 100, 100], [150, 60, 152, 62], [10, 150, 250, 155]]
    records = append_flipped([record(1, boxes)])
    epoch = make_epoch(records, SETTINGS, seed=1, epoch=0, batch_size=1)
    intake = Intake(6, {"crowd": 1, "outside": 1}, {"repeated": 2})
    account = account_of(intake, records, epoch, SETTINGS, long_masks=1)
    assert list(account.lines()) == [
        "annotations: 6 read, 1 trained (16.7%); 5 left out: 1 crowd regions (iscrowd), "
        "1 outside their image, 1 below 10 px in every chip, 1 of a size that is valid at no "
        "level, 1 longer than a chip",
        "of the 4 objects 2 are there twice, 1 have a mask that is simplified to fit "
        "into TRAIN.MAX_POLYGON_LEN",
    ]


@pytest.mark.parametrize("trained_copy", [0, 1])
def test_a_copy_that_is_trained_counts_for_its_original(trained_copy):
    # Copies do not differ so much: here only one of them can be trained.
    small, good = [10, 10, 11, 40], [10, 10, 40, 40]
    first, second = (small, good) if trained_copy else (good, small)
    records = [record(1, [first, small]), replace(record(1, [second, small]), flipped=True)]
    epoch = make_epoch(records, SETTINGS, seed=1, epoch=0, batch_size=1)
    account = account_of(Intake(2), records, epoch, SETTINGS)
    assert (account.objects, account.trained) == (2, 1)
    assert list(account.left_out.values()) == [1]


def test_objects_of_other_classes_are_not_forgotten():
    records = [record(1, [[10, 10, 40, 40]])]
    epoch = make_epoch(records, SETTINGS, seed=1, epoch=0, batch_size=1)
    account = account_of(Intake(3), records, epoch, SETTINGS)
    assert [entry.name for entry in account.left_out] == ["other_class"]
    assert account.trained + sum(account.left_out.values()) == 3


@pytest.mark.parametrize("intake", [Intake(), Intake(2, {"crowd": 2})])
def test_nothing_to_train(intake):
    records = [record(1, [])]
    epoch = make_epoch(records, SETTINGS, seed=1, epoch=0, batch_size=1)
    account = account_of(intake, records, epoch, SETTINGS)
    assert (account.trained, sum(account.left_out.values())) == (0, intake.read)
    assert len(list(account.lines())) == 1
