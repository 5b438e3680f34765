"""`sniper report`: what the page holds, what is escaped, what fits, what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sniper.config import load_config, save_config
from sniper.data import load_dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.evaluation import voc_rows, write_voc_results
from sniper.runs import test as test_run
from sniper.tools import test as test_tool
from sniper.tools.page.axes import LOG10, Axis, count_axis, size_axis, tick_text
from sniper.tools.page.html import Html, escape, join, json_block, prose, tag
from sniper.tools.page.tables import table
from sniper.tools.report import find_run, main
from tests.tools.report_case import CLASSES, HOSTILE_CLASS, HOSTILE_FILE, write_case, write_log
from tests.tools.test_analyze import write_voc

RECIPE = "sniper_mobilenetv2_toy"


class Page(HTMLParser):
    """All elements with their attributes, and the texts of some."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "img", "input", "br", "link"):
            self._open.append(name)

    def handle_endtag(self, name):
        assert self._open.pop() == name

    def handle_data(self, data):
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def all(self, name):
        return [attributes for element, attributes in self.elements if element == name]

    def text(self, *names):
        return " ".join(part for name in names for part in self.texts.get(name, ()))

    @property
    def tiles(self):
        return json.loads(next(t for t in self.texts["script"] if t.startswith("{")))


def run(out, overrides, *arguments):
    return main(["--cfg", RECIPE, "--out", str(out), *map(str, arguments), *overrides])


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    root = tmp_path_factory.mktemp("case")
    overrides = write_case(root)
    write_log(root)
    assert run(root / "page.html", overrides) == 0
    return root, overrides, (root / "page.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_has_every_section(case):
    page = Page(case[2])
    assert page._open == []
    sections = [attributes["id"] for attributes in page.all("section")]
    names = "overview data sizes chips training results errors worst about"
    assert sections == names.split()
    assert [link["href"][1:] for link in page.all("a")[1:10]] == sections
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("label"):
        assert attributes["for"] in ids
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
    assert all("alt" in attributes for attributes in page.all("img"))
    drawings = page.all("svg")
    assert all("aria-hidden" in one or one.get("aria-label") for one in drawings)
    assert all(one.get("scope") in ("row", "col") for one in page.all("th"))
    assert [name for name, _ in page.elements if name in ("main", "nav", "header", "h1")] == [
        "header", "h1", "nav", "main",
    ]  # fmt: skip


def test_nothing_of_the_data_becomes_html(case):
    page = Page(case[2])
    assert len(page.all("script")) == 2  # data and script
    assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
    assert not any("style" in a for _, a in page.elements)
    assert not page.all("b")
    for image in page.all("img"):
        assert image["src"].startswith("data:image/jpeg;base64,")
    # As texts both are there, also in the data of the script.
    assert HOSTILE_CLASS in page.text("bdi")
    assert any(HOSTILE_FILE in text for text in page.texts["bdi"])
    assert list(page.tiles["classes"].values()) == list(CLASSES.values())
    assert page.tiles["tiles"][0]["n"].startswith(HOSTILE_FILE)


def test_the_policy_allows_what_is_in_the_page_and_nothing_else(case):
    (policy,) = [a["content"] for a in Page(case[2]).all("meta") if "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for element, rule in (("style", "style-src"), ("script", "script-src")):
        text = re.findall(rf"<{element}>(.*?)</{element}>", case[2], re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", case[2])


def test_the_figures_are_those_of_the_set(case):
    page = Page(case[2])
    tiles = page.tiles
    assert len(tiles["tiles"]) == 12 and len(tiles["levels"]) == 3
    marks = [mark for tile in tiles["tiles"] for mark in tile["m"]]
    kinds = {kind: sum(mark[0] == kind for mark in marks) for kind in range(7)}
    # In each image one right, one of wrong class and three objects; alarms in half of them.
    assert kinds == {0: 12, 1: 36, 2: 12, 3: 4, 4: 0, 5: 0, 6: 6}
    missed = [mark for mark in marks if mark[0] == 1]
    assert sorted({mark[6] for mark in missed}) == [-1, 0.9]
    right = next(mark for mark in marks if mark[0] == 0)
    assert right[1:5] == [2, 5, 12, 12] and right[7] == 0b001  # below 55 px: the finest level
    # Recall is told per level, in px at its input.
    titles = page.text("figcaption")
    assert "Level 0 (960 \u00d7 1280 px): objects below 55 px" in titles
    assert "All objects, px of the image" in titles
    assert "RPNLogLoss" in titles and "validation" in titles
    cells = page.text("td", "th")
    assert "36" in cells and "34 px to" not in cells


def test_a_score_of_the_user_counts(case, tmp_path):
    root, overrides, text = case
    assert run(tmp_path / "p.html", overrides, "--score", "0.55", "--worst", 3) == 0
    tiles = Page((tmp_path / "p.html").read_text(encoding="utf-8")).tiles
    assert tiles["score"] == 0.55 and len(tiles["tiles"]) == 3
    assert Page(text).tiles["score"] != 0.55
    assert root.exists()


def test_the_size_is_kept_and_what_was_left_out_is_told(case, tmp_path, capsys):
    _, overrides, text = case
    full = len(text.encode())
    bare = len(re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]*", "", text).encode())
    limit = bare + (full - bare) // 2
    path = tmp_path / "p.html"
    assert run(path, overrides, "--max-size", limit) == 0
    small = path.read_text(encoding="utf-8")
    assert len(small.encode()) <= limit
    assert "would make the page larger" in small
    assert run(path, overrides, "--max-size", "20kB") == 2
    said = capsys.readouterr().err
    assert "larger without any picture" in said and "at least" in said
    assert path.read_text(encoding="utf-8") == small


def test_a_data_set_alone(tmp_path, capsys):
    overrides = write_case(tmp_path)
    (tmp_path / "out" / "results" / "detections_val_results.json").unlink()
    assert run(tmp_path / "p.html", overrides) == 0
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    said = page.text("p", "li")
    assert "There are no detections of COCO_val yet" in said
    assert "There is no log of a training" in said
    commands = page.text("code")
    assert "sniper test --cfg" in commands and "sniper train --cfg" in commands
    assert "Objects of the classes" in page.text("figcaption")
    assert page.all("img")  # examples of chips
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_without_its_data(tmp_path, caplog):
    folder = write_log(tmp_path)
    cfg = tmp_path / "out" / RECIPE / "val" / "config.yml"
    values = ["dataset.dataset_path", str(tmp_path / "gone"), "output_path", str(tmp_path / "out")]
    save_config(load_config(RECIPE, [*values, "dataset.image_set", "val"]), cfg)
    assert main([str(tmp_path / "out"), "--out", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "RPNLogLoss" in page.text("figcaption")
    assert "The training sets cannot be shown" in page.text("p")
    assert "The training sets cannot be shown" in caplog.text
    # Its folder is found from above, and after a move.
    assert find_run(tmp_path / "out") == find_run(folder) == folder
    (tmp_path / "out").rename(tmp_path / "moved")
    assert main([str(tmp_path / "moved"), "--out", str(tmp_path / "q.html")]) == 0
    assert "RPNLogLoss" in (tmp_path / "q.html").read_text(encoding="utf-8")
    # Without the log as well there is nothing.
    (tmp_path / "moved" / RECIPE / "val" / f"{RECIPE}.jsonl").unlink()
    assert main([str(tmp_path / "moved"), "--out", str(tmp_path / "r.html")]) == 3
    assert not (tmp_path / "r.html").exists()


def test_folders_that_are_no_run(tmp_path, capsys):
    assert main([str(tmp_path)]) == 3
    assert "this is no folder of a run" in capsys.readouterr().err
    for place in ("a", "b/c"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.yml").write_text("gpus: cpu\n")
    assert main([str(tmp_path)]) == 2
    assert "several runs" in capsys.readouterr().err
    assert main([str(tmp_path / "a"), "--cfg", "sniper_res50_e2e"]) == 2
    for flags in (["--max-size", "much"], ["--max-size", "-1MB"], ["--worst", "0"]):
        assert main(flags) == 2


def test_results_that_are_named_must_be_readable(case, tmp_path, capsys):
    _, overrides, _ = case
    broken = tmp_path / "r.json"
    broken.write_text("[{")
    assert run(tmp_path / "p.html", overrides, "--results", broken) == 3
    assert "no valid JSON" in capsys.readouterr().err


def test_broken_results_are_told_in_the_page(tmp_path, caplog):
    overrides = write_case(tmp_path)
    (tmp_path / "out" / "results" / "detections_val_results.json").write_text("[{")
    assert run(tmp_path / "p.html", overrides) == 0
    assert "The detections cannot be shown" in caplog.text
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert "The detections cannot be shown" in page.text("p")


def test_images_that_are_gone_have_tiles_without_a_picture(tmp_path):
    overrides = write_case(tmp_path, images=3)
    for path in (tmp_path / "data" / "images" / "val").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert run(tmp_path / "p.html", overrides) == 0
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert [tile["u"] for tile in page.tiles["tiles"]] == ["", "", ""]
    assert "3 images cannot be read" in page.text("p")


def test_main_test_makes_the_page(case, monkeypatch, capsys):
    root, overrides, _ = case
    monkeypatch.setattr(test_run, "test", lambda cfg, **how: None)
    assert test_tool.main(["--report", "--cfg", RECIPE, *overrides]) == 0
    path = root / "out" / "results" / "report_val.html"
    assert capsys.readouterr().out.strip() == str(path)
    assert "</html>" in path.read_text(encoding="utf-8")
    arguments = [*overrides, "TEST.EXTRACT_PROPOSALS", "True"]
    assert test_tool.main(["--report", "--cfg", RECIPE, *arguments]) == 2


def test_a_voc_set(tmp_path):
    write_voc(tmp_path / "data")
    values = {
        "dataset.dataset": "PascalVOC",
        "dataset.dataset_path": tmp_path / "data",
        "dataset.root_path": tmp_path,
        "dataset.image_set": "2007_test",
        "dataset.test_image_set": "2007_test",
        "dataset.NUM_CLASSES": 21,
        "output_path": tmp_path / "out",
    }
    overrides = ["--set", *(str(word) for pair in values.items() for word in pair)]
    dataset = load_dataset("PascalVOC", tmp_path / "data", "2007_test")
    dog = dataset.class_names.index("dog")
    found = ImageDetections(np.float32([[10, 10, 49, 49, 0.9]]), np.int32([dog]))
    none = ImageDetections(np.zeros((0, 5), np.float32), np.zeros(0, np.int32))
    rows = voc_rows(dataset, table_of([none, found]))
    folder = tmp_path / "out" / "results"
    write_voc_results(folder, dataset, rows)
    # Files of another set lie in the same folder: the report of this one says that it was tested.
    assert run(tmp_path / "p.html", overrides) == 0
    said = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "There are no detections" in said and "mAP50" not in said
    (folder / "detections_2007_test_report.json").write_text("{}")
    assert run(tmp_path / "p.html", overrides) == 0
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert "mAP50" in page.text("dt") and "54.5 %" in page.text("dd")
    assert "AP at IoU 0.70" in page.text("th")
    assert len(page.tiles["tiles"]) == 1  # the image whose dog is missed


def test_escapes():
    text = escape('<a href="x">&\'\x00\ud800\u202e')
    assert text == "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\ufffd\ufffd\u202e"
    assert tag("p", "<", Html("<br>"), None, ["&", 3]) == "<p>&lt;<br>&amp;3</p>"
    assert tag("a", title='"><script>', data_x=True, hidden=False) == (
        '<a title="&quot;&gt;&lt;script&gt;" data-x></a>'
    )
    block = json_block("x", ["</script><!--", "\u2028\ud800"])
    content = block.removeprefix('<script type="application/json" id="x">')
    content = content.removesuffix("</script>")
    assert "<" not in content and ">" not in content
    assert json.loads(content) == ["</script><!--", "\u2028\ud800"]
    assert prose("use `a<b` or --set TRAIN.lr") == (
        "use <code>a&lt;b</code> or <code>--set</code> <code>TRAIN.lr</code>"
    )
    assert join("a", None, ("b",)) == "ab"


def test_long_tables_are_folded_and_cut():
    rows = [[f"row {number}", "x"] for number in range(1000)]
    text = table("many", ["a", "b"], rows, rest="See there.")
    assert text.startswith("<details>") and "600 more rows are left out. See there." in text
    assert text.count("<tr>") == 401
    assert not table("few", ["a", "b"], rows[:3]).startswith("<details>")


def test_axes():
    assert count_axis("n", 7).high == 8 and count_axis("n", 0).high == 1
    assert size_axis("px", 12, 200).ticks() == [8, 16, 32, 64, 128, 256]
    assert size_axis("px", 0, 0.5).low == 1
    assert Axis("x", 0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Axis("lr", 1e-4, 0.02, LOG10).ticks() == pytest.approx([1e-4, 1e-3, 1e-2])
    assert Axis("lr", 0.03, 0.04, LOG10).ticks() == [0.03, 0.04]
    axis = size_axis("px", 8, 128)
    assert [axis.place(value) for value in (1, 8, 32, 999)] == pytest.approx([0, 0, 0.5, 1])
    assert [tick_text(v) for v in (0.25, 1500, 25000, 1.5e6)] == ["0.25", "1500", "25k", "1.5M"]


def test_the_package_has_the_files_of_the_page():
    root = Path(__file__).resolve().parents[2]
    names = sorted(
        path.name
        for path in (root / "lib" / "sniper" / "tools" / "page").iterdir()
        if path.is_file() and path.suffix != ".py"
    )
    assert names == ["script.js", "style.css"]
    assert '"sniper.tools.page": ["style.css", "script.js"]' in (root / "setup.py").read_text()
    manifest = (root / "MANIFEST.in").read_text()
    assert "recursive-include lib/sniper/tools/page *.css *.js" in manifest
