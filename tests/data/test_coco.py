from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.data import load_dataset
from sniper.data.coco import folder_of_set, image_places, load_coco
from sniper.data.coco_objects import convert_boxes
from sniper.data.image import check_size, read_image
from sniper.errors import ConfigError, DataError


def slow_conversion(box, width, height):
    """The rule of the 2018 framework, a number at a time."""
    x, y, w, h = box
    x1, y1 = max(0.0, x), max(0.0, y)
    x2 = min(width - 1, x1 + max(0.0, w - 1))
    y2 = min(height - 1, y1 + max(0.0, h - 1))
    return [int(x1), int(y1), int(x2), int(y2)], x2 >= x1 and y2 >= y1


@given(
    st.lists(
        st.tuples(
            st.tuples(*[st.floats(-50, 900)] * 2, *[st.floats(-5, 900)] * 2),
            st.integers(1, 800),
            st.integers(1, 800),
        ),
        max_size=8,
    )
)
def test_boxes_are_converted_as_in_2018(cases):
    xywh = np.array([case[0] for case in cases], np.float64).reshape(-1, 4)
    widths = np.array([case[1] for case in cases], np.int64)
    heights = np.array([case[2] for case in cases], np.int64)
    boxes, inside = convert_boxes(xywh, widths, heights, legacy=True)
    assert boxes.dtype == np.float32
    for (box, width, height), ours, kept in zip(cases, boxes, inside):
        expected, expected_kept = slow_conversion(box, width, height)
        assert kept == expected_kept
        if kept:
            assert ours.tolist() == expected


def exact_conversion(box, width, height):
    """What is left of a box in its image, as inclusive corners; None for nothing."""
    x, y, w, h = box
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x + w <= x1 or y + h <= y1 or x >= width or y >= height:
        return None
    # A part of less than a px counts as the px that it lies in, or as one px from where it starts.
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return [x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)]


@given(
    st.lists(
        st.tuples(
            st.tuples(*[st.floats(-50, 900)] * 2, *[st.floats(-5, 900)] * 2),
            st.integers(1, 800),
            st.integers(1, 800),
        ),
        max_size=8,
    )
)
def test_boxes_keep_their_fractions_and_are_cut_at_the_border(cases):
    xywh = np.array([case[0] for case in cases], np.float64).reshape(-1, 4)
    sizes = np.array([case[1:] for case in cases], np.int64).reshape(-1, 2)
    boxes, inside = convert_boxes(xywh, *sizes.T, legacy=False)
    for (box, width, height), ours, kept in zip(cases, boxes, inside):
        expected = exact_conversion(box, width, height)
        assert kept == (expected is not None)
        if kept:
            np.testing.assert_allclose(ours, expected, atol=1e-4)
            assert ours[0] >= 0 and ours[2] <= width - 1 and (ours[2:] >= ours[:2]).all()


def test_boxes_of_small_objects_lose_nothing(small_set):
    """Fractions of a px are a tenth of a small object; objects at the border are cut, not moved."""
    annotated = [(3.4, 7.75, 6.5, 6.25), (-2.5, 1.5, 7, 5), (5, -3.25, 6.5, 8), (14.5, 30, 9.5, 14)]
    small_set.content["annotations"] = [
        {"id": n, "image_id": 70, "category_id": 4, "bbox": list(box)}
        for n, box in enumerate(annotated)
    ]
    small_set.write()
    boxes = load_coco(small_set.root, small_set.image_set).records[0].boxes
    np.testing.assert_allclose(
        boxes,
        [[3.4, 7.75, 8.9, 13], [0, 1.5, 3.5, 5.5], [5, 0, 10.5, 3.75], [14.5, 30, 23, 39]],
        atol=1e-5,
    )
    legacy = load_coco(small_set.root, small_set.image_set, legacy_boxes=True).records[0].boxes
    np.testing.assert_array_equal(
        legacy, [[3, 7, 8, 13], [0, 1, 6, 5], [5, 0, 10, 7], [14, 30, 23, 39]]
    )


def test_real_coco_images(coco_mini):
    dataset = load_coco(coco_mini, "train2017", with_masks=True, legacy_boxes=True)
    content = json.loads((coco_mini / "annotations/instances_train2017.json").read_text())
    assert dataset.name == "COCO_train2017" and dataset.has_annotations
    assert [r.image_id for r in dataset.records] == [image["id"] for image in content["images"]]
    objects = sum(len(r.boxes) for r in dataset.records)
    crowds = sum(len(r.crowd_boxes) for r in dataset.records)
    assert (len(dataset.records), objects + crowds, crowds) == (100, 746, 6)
    assert dataset.class_names[:3] == ("__background__", "person", "bicycle")
    assert (len(dataset.class_names), dataset.category_ids[-1]) == (81, 90)
    first = dataset.records[0]
    own = [a for a in content["annotations"] if a["image_id"] == first.image_id]
    expected = [slow_conversion(a["bbox"], first.width, first.height)[0] for a in own]
    np.testing.assert_array_equal(first.boxes, expected)
    assert [dataset.category_ids[c] for c in first.classes] == [a["category_id"] for a in own]
    for polygons, annotation in zip(first.polygons, own):
        for ours, theirs in zip(polygons, annotation["segmentation"]):
            np.testing.assert_array_equal(ours, np.array(theirs, np.float32))


def test_real_set_without_annotations(coco_mini):
    dataset = load_coco(coco_mini, "test-dev2017")
    assert not dataset.has_annotations
    assert len(dataset.records) == 56 and not any(len(r.boxes) for r in dataset.records)
    assert "images/test2017/" in dataset.records[0].image_path.replace("\\", "/")


def test_any_names_ids_and_missing_keys(small_set):
    dataset = load_coco(small_set.root, small_set.image_set)
    assert dataset.class_names == ("__background__", "kite", "ant", "bee")
    assert dataset.category_ids == (0, 900, 4, 33)
    assert [r.image_id for r in dataset.records] == [70, 3, 11, 2, 5]
    street, second, _, empty, deep = dataset.records
    assert street.image_path.endswith("street north.png")
    np.testing.assert_array_equal(street.boxes, [[5, 6, 11, 13], [0, 10, 14, 39]])
    np.testing.assert_array_equal(street.classes, [1, 3])
    np.testing.assert_array_equal(street.crowd_boxes, [[0, 0, 8, 8]])
    np.testing.assert_allclose(second.boxes, [[1.9, 2.2, 11.4, 21.2]], atol=1e-5)
    assert empty.boxes.shape == (0, 4) and empty.boxes.dtype == np.float32
    np.testing.assert_array_equal(deep.boxes, [[3, 3, 6, 6]])
    assert street.polygons is None


def test_five_image_set_through_the_registry(small_set):
    dataset = load_dataset("COCO", small_set.root, small_set.image_set)
    assert len(dataset.records) == 5
    with pytest.raises(ConfigError, match="did you mean 'coco'"):
        load_dataset("cocoo", small_set.root, small_set.image_set)


def test_objects_without_extent_or_outside_are_dropped(small_set):
    small_set.content["annotations"] = [
        {"id": 1, "image_id": 2, "category_id": 4, "bbox": [1, 1, 5, 5], "area": 0},
        {"id": 2, "image_id": 2, "category_id": 4, "bbox": [20, 1, 5, 5]},
        {"id": 3, "image_id": 2, "category_id": 4, "bbox": [1, 1, 0, 5]},
        {"id": 4, "image_id": 2, "category_id": 4, "bbox": [19.5, 1, 5, 5]},
        {"id": 5, "image_id": 2, "category_id": 4, "bbox": [18.5, 1, 0.4, 5]},
    ]
    small_set.write()
    records = load_coco(small_set.root, small_set.image_set).records
    expected = [[1, 1, 5, 5], [19, 1, 19, 5], [18.5, 1, 18.5, 5]]
    np.testing.assert_array_equal(records[3].boxes, expected)
    records = load_coco(small_set.root, small_set.image_set, legacy_boxes=True).records
    np.testing.assert_array_equal(records[3].boxes, [[18, 1, 18, 5]])


def test_polygons_belong_to_kept_objects_only(small_set):
    triangle, square = [0, 0, 4, 0, 4, 4], [5, 5, 9, 5, 9, 9, 5, 9]
    small_set.content["annotations"] = [
        {"id": 1, "image_id": 70, "category_id": 4, "bbox": [0, 0, 0, 0], "segmentation": [square]},
        {
            "id": 2,
            "image_id": 70,
            "category_id": 4,
            "bbox": [0, 0, 9, 9],
            "segmentation": [triangle, [1, 1, 2, 2], square],
        },
        {
            "id": 3,
            "image_id": 70,
            "category_id": 4,
            "bbox": [1, 1, 5, 5],
            "segmentation": {"counts": [2400], "size": [40, 60]},
        },
        {"id": 4, "image_id": 3, "category_id": 4, "bbox": [1, 1, 5, 5], "segmentation": [square]},
        {"id": 5, "image_id": 11, "category_id": 4, "bbox": [1, 1, 5, 5]},
    ]
    small_set.write()
    first, second, third, empty, _ = load_coco(
        small_set.root, small_set.image_set, with_masks=True
    ).records
    assert [[p.tolist() for p in of_object] for of_object in first.polygons] == [
        [triangle, square],
        [],
    ]
    assert [p.tolist() for p in second.polygons[0]] == [square]
    assert third.polygons == ((),) and empty.polygons == ()


@pytest.mark.parametrize(
    ("image_set", "folder"),
    [
        ("train2017", "train2017"),
        ("minival2014", "val2014"),
        ("sminival2014", "val2014"),
        ("valminusminival2014", "val2014"),
        ("test-dev2015", "test2015"),
        ("test-dev2017", "test2017"),
        ("mytest", "mytest"),
    ],
)
def test_image_folders(image_set, folder):
    assert folder_of_set(image_set) == folder


def test_the_layouts_of_folders_are_found(small_set):
    places = image_places(small_set.root, small_set.image_set)
    modern, flat, *_ = map(Path, places.exact(70, "street north.png"))
    flat.parent.mkdir()
    modern.rename(flat)
    records = load_coco(small_set.root, small_set.image_set).records
    assert [records[0].image_path, records[1].image_path] == [
        str(flat),
        str(modern.with_name("a.b-c.png")),
    ]


def test_file_name_decides_and_the_id_only_without_one(small_set):
    """A subset with new ids keeps the names of 2014: the file made of an id is another picture."""
    folder = small_set.root / "images" / small_set.image_set
    of_id = folder / "COCO_herbst_24_000000000070.jpg"
    of_id.write_bytes((folder / "a.b-c.png").read_bytes())
    first = load_coco(small_set.root, small_set.image_set).records[0]
    assert first.image_path == str(folder / "street north.png")
    del small_set.content["images"][0]["file_name"]
    small_set.write()
    first = load_coco(small_set.root, small_set.image_set).records[0]
    assert first.image_path == str(of_id)


def test_image_info_file_serves_where_there_are_no_instances(small_set):
    del small_set.content["annotations"]
    small_set.write()
    small_set.path.rename(small_set.path.with_name("image_info_herbst_24.json"))
    dataset = load_coco(small_set.root, small_set.image_set, with_masks=True)
    assert not dataset.has_annotations and len(dataset.records) == 5


def test_annotations_of_unlisted_images_are_skipped_with_a_warning(small_set, caplog):
    small_set.content["annotations"][0]["image_id"] = 12345
    small_set.write()
    records = load_coco(small_set.root, small_set.image_set).records
    assert len(records[1].boxes) == 0
    assert "1 annotations of images that are not listed (they are left out)" in caplog.text


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(content):
        for step in path:
            content = content[step]
        content[last] = value

    return change


def _remove(*path, last):
    def change(content):
        for step in path:
            content = content[step]
        del content[last]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_remove(last="images"), "no list `images`"),
        (_remove(last="categories"), "no list `categories`"),
        (_set("annotations", {}), "`annotations` is no list"),
        (_set("images", []), "has no images"),
        (_set("categories", []), "has no categories"),
        (_remove("annotations", 1, last="bbox"), "annotation 1 .*it has no 'bbox'"),
        (_remove("annotations", 1, last="image_id"), "annotation 1 .*it has no 'image_id'"),
        (_set("annotations", 1, "category_id", 6), "annotation 1 .*category_id 6 is not in"),
        (_set("annotations", 1, "bbox", [1, 2, 3]), "annotation 1 .*3 numbers instead of 4"),
        (_set("annotations", 1, "bbox", [1, 2, 3, "x"]), 'annotation 1 .*height is "x", not a'),
        (_set("annotations", 1, "bbox", [1, 2, 3, float("nan")]), "annotation 1 .*not finite"),
        (_set("annotations", 1, "bbox", None), "annotation 1 .*broken"),
        (_set("annotations", 1, []), r"annotation number 2 \(no id\) .*broken"),
        (_set("annotations", 1, "segmentation", [[1, 2, 3]]), "annotation 1 .*x, y pairs"),
        (_set("annotations", 1, "segmentation", [1, 2, 3]), "annotation 1 .*x, y pairs"),
        (_set("annotations", 1, "segmentation", [[1, 2, 3, 4, 5, float("nan")]]), "not finite"),
        (_set("annotations", 1, "segmentation", [[[1, 2, 3]] * 6]), "annotation 1 .*broken"),
        (_set("annotations", 1, "segmentation", [["1"] * 6]), "annotation 1 .*broken"),
        (
            _set("annotations", 1, "image_id", [70]),
            "annotation 1 .*neither a whole number",
        ),
        (
            _set("annotations", 1, "category_id", {}),
            "annotation 1 .*neither a whole number",
        ),
        (_set("annotations", 1, "iscrowd", "yes"), "annotation 1 .*iscrowd is .yes., not 0"),
        (_set("images", 2, "width", float("inf")), "image 11 .*infinity"),
        (_remove("images", 2, last="height"), "image 11 .*it has no 'height'"),
        (_set("images", 2, "height", 0), "image 11 .*its size is 64x0"),
        (_set("images", 2, "width", "64"), "image 11 .*width is '64', not an integer"),
        (_set("images", 2, "id", 70), "image 70 .*the id is used before"),
        (_set("images", 2, "file_name", 4), "image 11 .*not a string"),
        (_set("categories", 1, "name", "kite"), "category 4 .*'kite' is used before"),
        (_set("categories", 1, "id", 900), "category 900 .*the id is used before"),
        (_set("categories", 1, "name", None), "category 4 .*not a string"),
        (_set("categories", 1, "name", "__background__"), "category 4 .* is always there"),
    ],
)
def test_broken_entries_are_named(small_set, change, message):
    change(small_set.content)
    small_set.write()
    with pytest.raises(DataError, match=message) as error:
        load_coco(small_set.root, small_set.image_set, with_masks=True)
    assert str(small_set.path) in str(error.value)


@pytest.mark.parametrize("text", ['{"images": [', "", "[1, 2]", b"\xff\xfe\x00"])
def test_broken_files_are_refused(small_set, text):
    small_set.path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match="valid JSON|COCO format|not encoded in utf-16-le") as error:
        load_coco(small_set.root, small_set.image_set)
    assert str(small_set.path) in str(error.value)


def test_missing_annotation_file_names_both_candidates(tmp_path):
    with pytest.raises(DataError, match=r"instances_x\.json or .*image_info_x\.json"):
        load_coco(tmp_path, "x")


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "train2014+val2014"])
def test_set_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(DataError, match="a set's name"):
        load_coco(tmp_path, name)


def test_missing_images_are_counted_and_the_first_five_named(small_set):
    small_set.content["images"] += [
        {"id": 100 + i, "file_name": f"lost{i}.png", "width": 5, "height": 5} for i in range(7)
    ]
    small_set.write()
    with pytest.raises(DataError, match="7 of 12 images of COCO_herbst_24 are missing") as error:
        load_coco(small_set.root, small_set.image_set)
    message = str(error.value)
    assert "lost4.png, ..." in message and "lost5.png" not in message
    assert str(small_set.image_path("lost0.png")) in message and "dataset.image_folder" in message


def test_image_lists_need_no_categories(small_set):
    del small_set.content["annotations"], small_set.content["categories"]
    small_set.write()
    dataset = load_coco(small_set.root, small_set.image_set)
    assert dataset.class_names == ("__background__",) and not dataset.has_annotations
    small_set.content["categories"] = []
    small_set.write()
    assert len(load_coco(small_set.root, small_set.image_set).records) == 5


def test_brackets_without_end(small_set):
    small_set.path.write_text("[" * 200_000)
    with pytest.raises(DataError, match="no valid JSON"):
        load_coco(small_set.root, small_set.image_set)


def test_optional_fields_may_be_missing_null_or_numbers_of_any_kind(small_set):
    box = {"image_id": 2, "category_id": 4, "bbox": [1, 2, 5, 6]}
    small_set.content["annotations"] = [
        box,
        {**box, "area": None, "iscrowd": None, "segmentation": None, "id": None},
        {**box, "area": 30.5, "iscrowd": 0, "segmentation": [], "id": 7},
        {**box, "image_id": 2.0, "category_id": 4.0, "iscrowd": 1.0},
        {**box, "iscrowd": True, "segmentation": {"counts": "abc", "size": [20, 20]}},
    ]
    small_set.write()
    record = load_coco(small_set.root, small_set.image_set, with_masks=True).records[3]
    np.testing.assert_array_equal(record.boxes, [[1, 2, 5, 7]] * 3)
    np.testing.assert_array_equal(record.crowd_boxes, [[1, 2, 5, 7]] * 2)
    assert record.polygons == ((), (), ())


def test_the_annotated_size_says_which_way_is_up(small_set):
    pixels = np.zeros((40, 60, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    tiff = b"MM\x00\x2a\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\x00\x00" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    small_set.image_path("street north.png").write_bytes(turned)
    record = load_coco(small_set.root, small_set.image_set).records[0]
    check_size(read_image(record.image_path, frame=record.frame), record)
    small_set.content["images"][0].update(width=40, height=60)
    small_set.write()
    record = load_coco(small_set.root, small_set.image_set).records[0]
    check_size(read_image(record.image_path, frame=record.frame), record)
    small_set.content["images"][0].update(width=41)
    small_set.write()
    record = load_coco(small_set.root, small_set.image_set).records[0]
    with pytest.raises(DataError, match="EXIF orientation"):
        check_size(read_image(record.image_path, frame=record.frame), record)
