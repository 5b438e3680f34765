"""`file_name` decides which picture is opened, whatever system and folder it was written for."""

from __future__ import annotations

import os
import shutil

import pytest

from sniper.config import load_config
from sniper.data import load_dataset
from sniper.data.problems import RELATED_PATH, SIMILAR_NAME
from sniper.errors import ConfigError, DataError


def named(small_set, change):
    for entry in small_set.content["images"]:
        if entry.get("file_name"):
            entry["file_name"] = change(entry["file_name"])
    small_set.write()


def load(small_set, **options):
    problems = []

    def note(problem):
        if problem.error is not None:
            raise problem.error
        problems.append(problem)

    dataset = load_dataset("coco", small_set.root, small_set.image_set, on_problem=note, **options)
    return [record.image_path for record in dataset.records], problems


FOREIGN = {
    "folder of another root": lambda n: "somewhere/else/" + n,
    "windows": lambda n: "images\\" + n,
    "windows, absolute": lambda n: "C:\\Users\\me\\set\\" + n,
    "linux, absolute": lambda n: "/home/me/set/images/" + n,
    "url": lambda n: n.replace(" ", "%20"),
    "up and down": lambda n: "../../x/" + n,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_names_for_other_places_are_found_and_told_once(small_set, kind):
    expected, _ = load(small_set)
    named(small_set, FOREIGN[kind])
    paths, problems = load(small_set)
    assert paths == expected
    told = [problem for problem in problems if problem.kind is RELATED_PATH]
    assert len(told) == 1 and told[0].count == len(list(told[0].texts))


def test_images_of_one_set_may_lie_in_several_folders(small_set):
    """Each is looked for where the one before was, then in the folders by their order."""
    expected, _ = load(small_set)
    home = os.path.dirname(expected[0])
    for at, place in ((1, "images"), (2, "images"), (3, "")):
        folder = os.path.join(small_set.root, place) if place else str(small_set.root)
        moved = os.path.join(folder, os.path.relpath(expected[at], home))
        os.makedirs(os.path.dirname(moved), exist_ok=True)
        shutil.move(expected[at], moved)
        expected[at] = moved
    assert load(small_set)[0] == expected
    # Where both have one, the folder of the image before it decides.
    shutil.copy(expected[2], os.path.join(home, os.path.basename(expected[2])))
    assert load(small_set)[0] == expected


@pytest.mark.parametrize("prefix", ["{set}/", "images/{set}/"])
def test_names_below_the_root_or_its_images_are_exact(small_set, prefix):
    expected, before = load(small_set)
    named(small_set, lambda name: prefix.format(set=small_set.image_set) + name)
    paths, problems = load(small_set)
    assert paths == expected and len(problems) == len(before)


def test_an_exact_name_wins_over_a_related_one(small_set):
    folder = small_set.image_path("x").parent
    (folder / "cam1").mkdir()
    shutil.copy(small_set.image_path("street north.png"), folder / "cam1" / "street north.png")
    small_set.content["images"][0]["file_name"] = "cam1/street north.png"
    small_set.write()
    assert load(small_set)[0][0] == str(folder / "cam1" / "street north.png")


def test_two_images_are_not_one_file(small_set):
    images = small_set.content["images"]
    images.append({**images[0], "id": 4711, "file_name": "cam2/street north.png"})
    images[0]["file_name"] = "cam1/street north.png"
    small_set.write()
    with pytest.raises(DataError, match="2 images of .* share a file") as error:
        load(small_set)
    assert "cam1/street north.png" in str(error.value) and "4711" in str(error.value)


def test_nothing_leads_out_of_the_folders(small_set, tmp_path):
    secret = tmp_path / "secret.png"
    shutil.copy(small_set.image_path("street north.png"), secret)
    small_set.content["images"][0]["file_name"] = "%2e%2e/%2e%2e/%2e%2e/secret.png"
    small_set.write()
    with pytest.raises(DataError, match="1 of 5 images"):
        load(small_set)


def test_annotations_and_images_may_lie_anywhere(small_set):
    """One folder with everything, as Roboflow exports it."""
    folder = small_set.image_path("x").parent
    expected = [
        path.replace(str(folder), str(small_set.root / "all")) for path in load(small_set)[0]
    ]
    small_set.path.rename(folder / "_annotations.coco.json")
    folder.rename(small_set.root / "all")
    places = {"annotation_file": "all/_annotations.coco.json", "image_folder": "all"}
    assert load(small_set, **places)[0] == expected
    (small_set.root / "all").rename(small_set.root / small_set.image_set)
    places = {"annotation_file": "{set}/_annotations.coco.json", "image_folder": "{set}"}
    assert len(load(small_set, **places)[0]) == len(expected)
    with pytest.raises(DataError, match=r"no annotation file") as error:
        load(small_set)
    assert "dataset.annotation_file" in str(error.value)


def test_one_annotation_file_is_not_read_for_two_sets():
    one = ["dataset.annotation_file", "labels.json", "dataset.image_set", "x"]
    with pytest.raises(ConfigError, match=r"would be the file of each of the sets .*\{set\}"):
        load_config("sniper_mobilenetv2_toy", [*one, "dataset.test_image_set", "y"])
    load_config("sniper_mobilenetv2_toy", [*one, "dataset.test_image_set", "x"])


def test_other_formats_say_that_they_have_one_place(voc_set):
    with pytest.raises(ConfigError, match="have their files in one place"):
        load_dataset("voc", voc_set.root, "2007_trainval", image_folder="elsewhere")


def test_a_name_that_fits_two_files_is_refused(small_set):
    name = small_set.content["images"][1]["file_name"]
    shutil.copy(small_set.image_path(name), small_set.root / "images" / name)
    small_set.content["images"][1]["file_name"] = f"C:\\me\\{name}"
    small_set.write()
    with pytest.raises(DataError, match="may be one of several files") as error:
        load(small_set)
    assert "dataset.image_folder" in str(error.value)


def test_the_longest_end_of_a_name_wins(small_set):
    name = small_set.content["images"][1]["file_name"]
    inside = small_set.image_path(f"cam1/{name}")
    inside.parent.mkdir()
    shutil.copy(small_set.image_path(name), inside)
    small_set.content["images"][1]["file_name"] = f"C:/me/cam1/{name}"
    small_set.write()
    assert load(small_set)[0][1] == str(inside)


def test_an_address_of_the_web_is_a_path_and_a_question(small_set):
    name = small_set.content["images"][1]["file_name"]
    url = f"https://example.org/data/{name.replace('.', '%2E', 1)}?token=1"
    small_set.content["images"][1]["file_name"] = url
    small_set.write()
    assert load(small_set)[0][1] == str(small_set.image_path(name))


@pytest.mark.parametrize("prefix", ["COCO_herbst_24_", ""])
def test_without_a_file_name_the_id_makes_one(small_set, prefix):
    entry = small_set.content["images"][1]
    made = small_set.image_path(f"{prefix}{entry['id']:012d}.jpg")
    small_set.image_path(entry["file_name"]).rename(made)
    del entry["file_name"]
    small_set.write()
    assert load(small_set)[0][1] == str(made)


CASES = {
    "case": ("IMG_1.JPG", "img_1.jpg"),
    "accents": ("caf\u00e9.png", "cafe\u0301.png"),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_name_in_another_case_or_unicode_form_is_found_and_told(small_set, kind):
    written, stored = CASES[kind]
    paths, _ = load(small_set)
    shutil.move(paths[0], os.path.join(os.path.dirname(paths[0]), stored))
    first = os.path.basename(paths[0])
    named(small_set, lambda name: written if os.path.basename(name) == first else name)
    found, problems = load(small_set)
    assert os.path.basename(found[0]) == stored and found[1:] == paths[1:]
    [told] = [problem for problem in problems if problem.kind is SIMILAR_NAME]
    assert told.count == 1 and written in list(told.texts)[0]


def test_two_files_that_differ_in_case_are_not_guessed(small_set):
    paths, _ = load(small_set)
    folder, first = os.path.split(paths[0])
    for name in ("X.png", "x.PNG"):
        shutil.copy(paths[0], os.path.join(folder, name))
    named(small_set, lambda name: "x.png" if os.path.basename(name) == first else name)
    with pytest.raises(DataError, match="may be one of several files"):
        load(small_set)


def test_two_names_of_one_file_are_refused(small_set):
    paths, _ = load(small_set)
    first, second = (os.path.basename(path) for path in paths[:2])
    other = first.upper()
    assert other != first
    named(small_set, lambda name: other if os.path.basename(name) == second else name)
    with pytest.raises(DataError, match="share a file with another image"):
        load(small_set)


def test_voc_names_in_another_case_are_found_and_told(voc_set, caplog):
    voc_set.add("000012", (50, 40), [("dog", (5, 6, 20, 30))])
    for folder, ending in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        path = voc_set.folder / folder / f"000012{ending}"
        path.rename(path.with_name(f"img_a{ending}"))
    voc_set.list("trainval", "IMG_A\n000007\n")
    dataset = load_dataset("voc", voc_set.root, "2007_trainval")
    assert os.path.basename(dataset.records[0].image_path) == "img_a.jpg"
    assert dataset.records[0].num_gt == 1 and caplog.text.count("differ from their files") == 2
