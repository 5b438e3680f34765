from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.boxes import clip
from sniper.data import Dataset, Record, attach_proposals
from sniper.data.legacy_pickle import read_array_list
from sniper.data.legacy_proposals import (
    find_legacy_file,
    load_legacy_proposals,
    measure_fit,
    python2_dict_order,
)
from sniper.errors import DataError


def python2_array(array, protocol):
    array = np.asarray(array)
    code, order = array.dtype.str[1:].encode(), array.dtype.str[:1].encode()
    raw = array.tobytes()
    if protocol == 0:
        shape = b"".join(b"I%d\n" % side for side in array.shape)
        text = repr(raw)[1:].encode("latin-1")
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
            b"(I1\n(" + shape + b"tcnumpy\ndtype\n(S'" + code + b"'\nI0\nI1\ntR"
            b"(I3\nS'" + order + b"'\nNNNI-1\nI-1\nI0\ntb"
            b"I00\nS" + text + b"\ntb"
        )
    shape = b"".join(b"J" + struct.pack("<i", side) for side in array.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01(" + shape + b"tcnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"
        b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )


def python2_pickle(arrays, protocol=2, after_nms=False):
    """A list of arrays as Python 2 pickled it: byte strings, no frames."""
    items = b"".join(python2_array(array, protocol) + b"a" for array in arrays)
    if protocol == 0:
        return b"(l" + items + b"."
    content = b"]" + items
    return b"\x80\x02" + (b"]" + content + b"a]a" if after_nms else content) + b"."


def rows_of(boxes, scores=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.1, len(boxes)) if scores is None else scores
    return np.concatenate([boxes, np.asarray(scores, np.float32)[:, None]], axis=1)


def make_dataset(ids, *, seed=0, voc=False):
    """Images of many sizes, with boxes all over them."""
    rng = np.random.default_rng(seed)
    records = []
    for image_id in ids:
        width, height = (int(side) for side in rng.integers(100, 600, 2))
        corner = rng.uniform(0, 0.7, (3, 2)) * (width, height)
        boxes = np.concatenate([corner, corner + rng.uniform(10, 80, (3, 2))], axis=1)
        boxes = np.trunc(clip(boxes, height, width)).astype(np.float32)
        records.append(
            Record(
                image_path=f"{image_id}.jpg",
                image_id=image_id,
                width=width,
                height=height,
                flipped=False,
                boxes=boxes,
                classes=np.ones(3, np.int32),
                is_gt=np.ones(3, bool),
            )
        )
    return Dataset(
        "PASCALVOC_2007_x" if voc else "COCO_x", "x", ("__background__", "thing"), (0, 1),
        tuple(records), "x.json", True, legacy_file_order=voc,
    )  # fmt: skip


def proposals_of(record, seed):
    """Boxes near the ground truth and elsewhere, as a proposal network gives them."""
    rng = np.random.default_rng(seed)
    near = np.repeat(record.gt_boxes, 3, axis=0) + rng.uniform(-6, 6, (9, 4))
    corner = rng.uniform(0, 0.8, (8, 2)) * (record.width, record.height)
    far = np.concatenate([corner, corner + rng.uniform(5, 120, (8, 2))], axis=1)
    boxes = np.sort(np.concatenate([near, far]).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    return rows_of(clip(boxes.astype(np.float32), record.height, record.width))


IDS = [391895, 522418, 184613, 318219, 554625, 574769, 60623, 309022, 5802, 222564]
MANY_IDS = np.random.default_rng(1).permutation(600_000)[:60].tolist()


def python2_list(dataset):
    """Proposals in the order in which the 2018 program stored them."""
    order = python2_dict_order([record.image_id for record in dataset.records])
    return [proposals_of(dataset.records[i], i) for i in order]


@pytest.mark.parametrize("protocol", [0, 2])
def test_python2_pickles_of_both_kinds(tmp_path, protocol):
    arrays = [
        rows_of([[1, 2, 3, 4], [5, 6, 7, 8.25]]),
        np.zeros((0, 5), np.float32),
        np.arange(10, dtype=np.float64).reshape(2, 5) * 1e-3,
        np.arange(10, dtype=">f4").reshape(2, 5),
    ]
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle(arrays, protocol))
    read = read_array_list(path)
    assert len(read) == 4
    for ours, theirs in zip(read, arrays):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_every_byte_value_survives(tmp_path):
    array = np.arange(256, dtype=np.uint8).reshape(4, 64)
    for protocol in (0, 2):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(python2_pickle([array], protocol))
        np.testing.assert_array_equal(read_array_list(path)[0], array)


def test_the_list_after_nms(tmp_path):
    arrays = [rows_of([[1, 2, 3, 4]]), rows_of([[5, 6, 7, 8]])]
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle(arrays, after_nms=True))
    np.testing.assert_array_equal(read_array_list(path), arrays)


def test_python3_pickles_are_read_as_well(tmp_path):
    path = tmp_path / "x.pkl"
    arrays = [rows_of([[1, 2, 3, 4]]), np.asfortranarray(rows_of([[5, 6, 7, 8], [1, 1, 2, 2]])), []]
    for protocol in (3, 4):
        path.write_bytes(pickle.dumps(arrays, protocol))
        first, second, third = read_array_list(path)
        np.testing.assert_array_equal(first, arrays[0])
        np.testing.assert_array_equal(second, arrays[1])
        assert third.shape == (0, 5)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def hostile():
    state = b"(K\x01K\x02\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R\x89U\x04abcdtb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return {
        "system": b"\x80\x02]cos\nsystem\nU\x05touch\x85Ra.",
        "builtin": b"\x80\x02]c__builtin__\neval\nU\x031+1\x85Ra.",
        "builtins": b"\x80\x02]cbuiltins\nexec\nU\x031+1\x85Ra.",
        "reduce": pickle.dumps([Evil()]),
        "numpy load": b"\x80\x02]cnumpy\nload\nU\x01x\x85Ra.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.dot\x93.",
        "calls the array type": b"\x80\x02]cnumpy\nndarray\nK\x08\x85Ra.",
        "new object": b"\x80\x02]cnumpy\nndarray\nK\x08\x85\x81a.",
        "changes a function": b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",
        "object array": pickle.dumps([np.array([{}, 1], dtype=object)]),
        "text array": pickle.dumps([np.array(["a"])], 2),
        "record array": b"\x80\x02]cnumpy\ndtype\nU\x02V8K\x00K\x01\x87Ra.",
        "too few bytes": b"\x80\x02]" + made + state + b"a.",
        "gigantic": b"\x80\x02]" + made + state.replace(b"K\x02", b"J\xff\xff\xff\x7f") + b"a.",
        "negative": b"\x80\x02]" + made + state.replace(b"K\x02", b"J\xff\xff\xff\xff") + b"a.",
        "no array": pickle.dumps([1, 2]),
        "no list": pickle.dumps({"a": 1}),
        "memory for 2^32 notes": b"\x80\x02]r\xff\xff\xff\xff\x8c",
        "persistent id": b"\x80\x02Pabc\n.",
        "extension": b"\x80\x02\x82\x01.",
        "empty": b"",
        "text": b"hello",
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_and_broken_pickles_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pkl"
    path.write_bytes(hostile()[name])
    with pytest.raises(DataError, match="refused or cannot be read") as error:
        read_array_list(path)
    assert str(path) in str(error.value)
    assert os.listdir(tmp_path) == ["x.pkl"]


def test_the_forbidden_name_is_said(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(hostile()["system"])
    with pytest.raises(DataError, match=r"asks for os\.system"):
        read_array_list(path)


def test_cut_off_pickles_are_refused(tmp_path):
    content = python2_pickle([rows_of([[1, 2, 3, 4]]), rows_of([[5, 6, 7, 8]])])
    path = tmp_path / "x.pkl"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            read_array_list(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_pickles_give_data_errors_only(tmp_path_factory, data):
    content = bytearray(
        python2_pickle([rows_of([[1, 2, 3, 4]])], data.draw(st.sampled_from([0, 2])))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("p") / "x.pkl"
    path.write_bytes(content)
    try:
        arrays = read_array_list(path)
    except DataError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays)


@pytest.mark.parametrize("ids", [IDS, MANY_IDS])
def test_entries_find_their_images(tmp_path, ids, caplog):
    dataset = make_dataset(ids)
    path = tmp_path / "COCO_x_rpn.pkl"
    path.write_bytes(python2_pickle(python2_list(dataset)))
    with caplog.at_level(logging.INFO):
        proposals = load_legacy_proposals(path, dataset)
    assert (proposals.set_name, proposals.image_ids.tolist()) == ("COCO_x", ids)
    for i, record in enumerate(dataset.records):
        boxes, scores = proposals.for_image(record.image_id)
        expected = proposals_of(record, i)
        np.testing.assert_array_equal(boxes, expected[:, :4])
        np.testing.assert_array_equal(scores, expected[:, 4])
    assert "mean best IoU with the ground truth 0." in caplog.text
    attached = attach_proposals(dataset.records, proposals, set_name="COCO_x")
    assert all(len(record.boxes) > 5 for record in attached)


def test_voc_lists_are_in_the_order_of_the_set(tmp_path):
    dataset = make_dataset(MANY_IDS, voc=True)
    path = tmp_path / "PASCALVOC_2007_x_rpn.pkl"
    arrays = [proposals_of(record, i) for i, record in enumerate(dataset.records)]
    path.write_bytes(python2_pickle(arrays))
    boxes, _ = load_legacy_proposals(path, dataset).for_image(MANY_IDS[3])
    np.testing.assert_array_equal(boxes, arrays[3][:, :4])


@pytest.mark.parametrize("ids", [IDS, MANY_IDS])
def test_a_wrong_order_is_noticed(tmp_path, ids):
    dataset = make_dataset(ids)
    path = tmp_path / "COCO_x_rpn.pkl"
    path.write_bytes(
        python2_pickle([proposals_of(record, i) for i, record in enumerate(dataset.records)])
    )
    sentence = "the 2018 proposals of 'COCO_x' do not fit the set 'COCO_x': read in the order"
    with pytest.raises(DataError, match=sentence) as error:
        load_legacy_proposals(path, dataset)
    assert "--order file" in str(error.value)
    proposals = load_legacy_proposals(path, dataset, order="file")
    assert len(proposals.boxes) == 17 * len(ids)


def test_images_of_one_size_are_told_apart_by_the_ground_truth(tmp_path):
    dataset = make_dataset(MANY_IDS)
    records = tuple(
        dataclasses.replace(record, width=700, height=700) for record in dataset.records
    )
    dataset = dataclasses.replace(dataset, records=records)
    path = tmp_path / "COCO_x_rpn.pkl"
    path.write_bytes(python2_pickle([proposals_of(r, i) for i, r in enumerate(records)]))
    with pytest.raises(DataError, match="mean best IoU with the ground truth is"):
        load_legacy_proposals(path, dataset)
    path.write_bytes(python2_pickle(python2_list(dataset)))
    load_legacy_proposals(path, dataset)


def test_another_set_fails_in_one_sentence(tmp_path):
    dataset = make_dataset(IDS)
    path = tmp_path / "COCO_train2014_rpn.pkl"
    path.write_bytes(python2_pickle(python2_list(dataset)[:9]))
    sentence = (
        "the 2018 proposals of 'COCO_train2014' do not fit the set 'COCO_x': "
        "it has 9 entries for 10 images"
    )
    with pytest.raises(DataError, match=sentence):
        load_legacy_proposals(path, dataset)


def test_padding_and_broken_rows_are_dropped(tmp_path):
    dataset = make_dataset(IDS)
    arrays = python2_list(dataset)
    good = arrays[0].copy()
    junk = rows_of([[1, 2, 3, 4], [50, 60, 300, 900], [np.nan, 1, 2, 3]], [0, 0, 0.5])
    arrays[0] = np.concatenate([junk, good])
    path = tmp_path / "COCO_x_rpn.pkl"
    path.write_bytes(python2_pickle(arrays))
    first_id = IDS[python2_dict_order(IDS)[0]]
    boxes, _ = load_legacy_proposals(path, dataset).for_image(first_id)
    np.testing.assert_array_equal(boxes, good[:, :4])


def test_files_without_scores_keep_their_order(tmp_path):
    dataset = make_dataset(IDS)
    path = tmp_path / "COCO_x_rpn.pkl"
    path.write_bytes(python2_pickle([rows[:, :4] for rows in python2_list(dataset)]))
    boxes, scores = load_legacy_proposals(path, dataset).for_image(IDS[2])
    np.testing.assert_array_equal(boxes, proposals_of(dataset.records[2], 2)[:, :4])
    assert (scores == 1).all()
    path.write_bytes(python2_pickle([rows[:, :3] for rows in python2_list(dataset)]))
    with pytest.raises(DataError, match=r"entry \d .*wrong shape"):
        load_legacy_proposals(path, dataset)


def test_fit_of_sets_without_ground_truth_or_proposals():
    dataset = make_dataset(IDS)
    nothing = [np.zeros((0, 5), np.float32)] * len(IDS)
    fit = measure_fit(dataset.records, nothing)
    assert np.isnan(fit.own_iou) and fit.problem() is None
    assert measure_fit([], []).problem() is None


def test_the_legacy_file_is_found(tmp_path, caplog):
    """2018 read what it had left after NMS, and made it only where it was missing."""
    caplog.set_level("INFO")
    assert find_legacy_file(tmp_path, "COCO_x") is None
    (tmp_path / "COCO_x_rpn.pkl").touch()
    assert find_legacy_file(tmp_path, "COCO_x").name == "COCO_x_rpn.pkl"
    assert not caplog.text
    (tmp_path / "COCO_x_rpn_after_nms.pkl").touch()
    assert find_legacy_file(tmp_path, "COCO_x").name == "COCO_x_rpn_after_nms.pkl"
    assert "of" in caplog.text and "COCO_x_rpn.pkl the former counts" in caplog.text


def test_a_large_list_is_read_quickly(tmp_path):
    """A guard against quadratic work, not a benchmark."""
    dataset = make_dataset(range(3000))
    path = tmp_path / "COCO_x_rpn.pkl"
    path.write_bytes(python2_pickle(python2_list(dataset)))
    start = time.monotonic()
    assert len(load_legacy_proposals(path, dataset).image_ids) == 3000
    assert time.monotonic() - start < 20
