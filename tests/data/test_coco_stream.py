"""Annotation files parsed piece by piece: what comes out is what `json.load` gives."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from sniper.data import coco_parse, json_elements, json_stream
from sniper.data.coco_columns import read_annotations
from sniper.data.coco_parse import parse_coco
from sniper.data.json_elements import whole_elements
from sniper.data.json_stream import NotStreamableError, stream_object
from sniper.errors import DataError

POLYGON = [1.25, 2.5, 9, 2.5, 9.75, 8, 1, 8.125]
RUNS = {"size": [40, 60], "counts": [100, 20, 2280]}
PLAIN = {"id": 7, "image_id": 3, "category_id": 4, "bbox": [1.1, 2, 3.3, 4], "iscrowd": 0}
# Entries in the ways in which tools write them; most are no plain ones.
ODD = [
    {"area": 702.1057499999998, "segmentation": [POLYGON, POLYGON[:6]]},
    {"area": None, "segmentation": None, "iscrowd": None, "ignore": False},
    {"area": "12.5"},
    {"segmentation": []},
    {"segmentation": [POLYGON, [1, 2, 3, 4]]},
    {"segmentation": [[1, 1], [5, 1], [5, 5]]},
    {"segmentation": POLYGON},
    {"segmentation": RUNS},
    {"segmentation": RUNS, "iscrowd": 1},
    {"segmentation": RUNS, "iscrowd": True},
    {"segmentation": [POLYGON], "ignore": 1},
    {"iscrowd": "1"},
    {"iscrowd": 0.0, "ignore": "true"},
    {"bbox": ["1", "2", "3.5", "4"]},
    {"bbox": [-0, -0.0, 1e1, 2.5e-1]},
    {"bbox": [0.1 + 0.2, 123456789012345678, 1e15, 3]},
    {"bbox": [True, 0, 5, 5]},
    {"id": None},
    {"id": "7"},
    {"id": 2**63 - 1},
    {"id": 2**70},
    {"image_id": 3.0},
    {"image_id": "3"},
    {"image_id": 999},
    {"category_id": "4"},
    {"category_id": 4.0},
    {
        "caption": 'a "bbox": [1, 2] \\ ünd "segmentation": [[',
        "more": [{"a": [None, {}]}, "\u2028"],
    },
    {"attributes": {"bbox": [9, 9, 9, 9], "deep": [[[[]]]]}},
]
BROKEN = [
    {"bbox": [1, 2, 3]},
    {"bbox": [float("nan"), 0, 1, 1]},
    {"area": float("inf")},
    {"bbox": [1e308, 1e308, 1e308, 1e308]},
    {"category_id": 5},
    {"category_id": True},
    {"iscrowd": "maybe"},
    {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
    {"segmentation": [[1, 2, 3, 4, 5, 1e39]]},
    {"segmentation": [[1, 2, 3, 4, 5, float("nan")]]},
    {"segmentation": {}},
    {"segmentation": ["abcdef"]},
]


def content_of(entries):
    return {
        "annotations": entries,
        "info": {"annotations": [1], "none": None},
        "images": [
            {"id": 3, "file_name": "ä.jpg", "width": 60, "height": 40},
            {"id": 8, "file_name": "b.jpg", "width": 60, "height": 40},
        ],
        "categories": [{"id": 4, "name": "ant"}, {"id": 6, "name": "bée"}],
    }


def every_way(path, monkeypatch, with_masks=True):
    """Table or error, and problems: by orjson, by the standard library, and as a whole."""
    outcomes: list = []
    for way in ("orjson", "pieces", "whole"):
        with monkeypatch.context() as context:
            if way == "pieces":
                context.setattr(json_elements, "orjson", None)
            if way == "whole":
                context.setattr(coco_parse, "read_annotations", refuse)
            problems = []
            for on_problem in (partial(note, problems), None):
                options = {} if on_problem is None else {"on_problem": on_problem}
                try:
                    table = parse_coco(path, with_masks=with_masks, **options)
                    outcome = {k: (v.dtype, v.tolist()) for k, v in vars(table).items()}
                except DataError as error:
                    outcome = str(error)
                outcomes.append(outcome)
            outcomes[-2] = (outcomes[-2], problems)
    return outcomes[::2], outcomes[1::2]


def note(problems, problem):
    texts = list(problem.texts)
    problems.append((problem.kind.name, problem.count, texts, str(problem.error)))


def refuse(*_, **__):
    raise NotStreamableError


@pytest.mark.parametrize("with_masks", [False, True])
@pytest.mark.parametrize("changes", [*([one] for one in [*ODD, *BROKEN]), ODD, [*ODD, *BROKEN]])
def test_every_way_of_writing_gives_the_same(tmp_path, monkeypatch, changes, with_masks):
    changes = [{}, *changes, {"image_id": 8}, {"category_id": 6}]
    entries = [{**PLAIN, "id": number, **one} for number, one in enumerate(changes, start=1)]
    path = tmp_path / "instances_x.json"
    path.write_text(json.dumps(content_of(entries), ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(json_stream, "_PIECE_BYTES", 400)
    for fast, pieces, whole in every_way(path, monkeypatch, with_masks):
        assert repr(fast) == repr(whole) and repr(pieces) == repr(whole)


TEXT = json.dumps(content_of([PLAIN, {**PLAIN, "id": 8}, {**PLAIN, "id": 9}]))


@pytest.mark.parametrize(
    "text",
    [
        TEXT[:-1],
        TEXT[: len(TEXT) // 3],
        TEXT + "x",
        TEXT.replace("1.1", "01.1"),
        TEXT.replace("1.1", "1."),
        TEXT.replace("1.1", "1.1.1"),
        TEXT.replace('"iscrowd": 0}', '"iscrowd": 0,}'),
        TEXT.replace("}, {", "} {", 1),
        TEXT.replace('"id": 8}]', '"id": 8},]'),
        TEXT.replace('"id": 8', '"id": 8, "id": 11'),
        TEXT.replace('"id": 8', '"id": 8, "text": "\t"'),
        TEXT.replace('"id": 8', '"id": 8, "text": "\\x"'),
        TEXT.replace('"id"', r'"\u0069d"'),
        TEXT.replace('"info"', '"annotations": [], "info"'),
        TEXT.replace('"info"', '"images": [], "info"'),
        TEXT.replace(", ", " ,\r\n\t ").replace(": ", " :\n"),
        "[1, 2]",
        "",
        "{}",
        '{"images": 3, "categories": [], "annotations": []}',
        '{"images": [], "categories": [], "annotations": {}}',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("piece", [64, 1 << 20])
def test_broken_and_odd_texts_are_told_as_before(tmp_path, monkeypatch, text, encoding, piece):
    path = tmp_path / "instances_x.json"
    path.write_bytes(text.encode(encoding))
    monkeypatch.setattr(json_stream, "_PIECE_BYTES", piece)
    for fast, pieces, whole in every_way(path, monkeypatch):
        assert repr(fast) == repr(whole) and repr(pieces) == repr(whole)


@pytest.mark.parametrize("piece", [1, 2, 7, 4096])
def test_pieces_may_end_anywhere(tmp_path, monkeypatch, piece):
    content = {"a": [1, 23, 4.5, "x,]", [], {"b": [1]}, None], "é": "ü", "n": 12345, "c": []}
    content["a"] += [-1.5, 12.25, 1e-7, 1.5e300, -2.5e-9] * 3
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(json_stream, "_PIECE_BYTES", piece)
    taken = []
    assert stream_object(path, {"a": taken.append, "zz": print}) == {**content, "a": []}
    assert taken == content["a"]


SCAN = json.JSONDecoder().scan_once


@pytest.fixture
def orjson_calls(monkeypatch):
    """What is given to orjson."""
    loads = pytest.importorskip("orjson").loads
    calls: list = []

    class Noting:
        @staticmethod
        def loads(text):
            calls.append(text)
            return loads(text)

    monkeypatch.setattr(json_elements, "orjson", Noting)
    return calls


@pytest.mark.parametrize(
    "elements",
    [
        [{"a": 1, "b": [{"a": 2}, {"a": 3}]}, {"a": ',{"a"', "b": {"c": 4}}, {"a": []}] * 2,
        [{"a": {"a": 1}}, {"a": '\\",{"a"\\'}, {"b": [[{"a": 1}, {"a": 1}]]}, {"a": None}],
        [{"a": "ü, \u2028"}, {}, {"a": [1, [2, {"a": 3}]]}, 5, {"a": "]"}, {"a": "}]"}, []],
        [[1, 2], [3, [4, 5]], "a,b", 12, -3.5e7, True, None, [], 78],
        [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
    ],
)
@pytest.mark.parametrize("layout", [(",", ":"), (", ", ": "), ("\n , \t", " :\r\n")])
def test_a_text_cut_anywhere_gives_whole_elements(orjson_calls, elements, layout):
    text = json.dumps(elements, separators=layout, ensure_ascii=False)[1:]
    most = 0
    for end in range(len(text) + 1):
        # What follows the list can look like elements of it.
        for behind in ("", ', {"a": 1}, {"a": 2}', "]", '"', ","):
            taken, place = whole_elements(text[:end] + behind, 0, SCAN)
            if place <= end:
                assert taken == elements[: len(taken)]
                assert json.loads(f"[{text[:place]} 0]") == [*taken, 0]
            else:  # what is behind it belongs to the text that was given
                whole = text[:end] + behind
                assert json.loads(f"[{whole[:place]} 0]") == [*taken, 0]
            most = max(most, len(taken))
    assert most >= 1 and orjson_calls


@pytest.mark.parametrize(
    ("number", "is_fast"),
    [
        ("-0", True),
        ("-0.0", True),
        ("1E+2", True),
        ("1e-400", True),
        ("18446744073709551615", False),
        ("18446744073709551616", False),
        ("-9223372036854775809", False),
        ("9" * 400, False),
        ("0.012345678901234567890", True),
        ("0.012345678901234567890, 12345678901234567890123", False),
        ("123456789012345678", True),
        ("NaN", False),
        ("-Infinity", False),
        ("1e400", False),
        (r'"\ud800"', False),
        (r'"\ud83d\ude00\u0000\/"', True),
        ('{"b": 1, "c": 2, "b": 3}', True),
        ("[" * 500 + "]" * 500, True),
    ],
)
def test_elements_are_those_of_the_standard_library(tmp_path, orjson_calls, number, is_fast):
    text = f'{{"x": [{{"a": 0}}, {{"a": [{number}]}}, {{"a": 1}}, {{"a": 2}}]}}'
    path = tmp_path / "x.json"
    path.write_text(text)
    taken: list = []
    stream_object(path, {"x": taken.append})
    assert repr(taken) == repr(json.loads(text)["x"])
    refused = orjson_calls and _is_refused(orjson_calls[0])
    assert is_fast == bool(orjson_calls and not refused)


def _is_refused(text):
    try:
        json_elements.orjson.loads(text)
    except ValueError:
        return True
    return False


def test_a_broken_encoding_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"x": [{"a": 0}, {"a": "\xff"}, {"a": 1}, {"a": 2}]}')
    with pytest.raises(NotStreamableError, match="utf-8"):
        stream_object(path, {"x": print})


def test_every_piece_is_parsed_once(tmp_path, monkeypatch, orjson_calls):
    monkeypatch.setattr(json_stream, "_PIECE_BYTES", 4096)
    # Keys that change make the guess of the end a bad one.
    text = ", ".join(f'{{"k{n // 3}": {n}, "list": [{n}]}}' for n in range(2000))
    path = tmp_path / "x.json"
    path.write_text(f'{{"x": [{text}]}}')
    taken: list = []
    stream_object(path, {"x": taken.append})
    assert taken == json.loads(f"[{text}]")
    assert len(orjson_calls) <= len(text) / 4096 + 2


def test_random_numbers_are_those_of_the_standard_library(orjson_calls):
    rng = np.random.default_rng(0)
    numbers = 10.0 ** rng.uniform(-12, 12, (500, 4)) * rng.choice([-1, 1], (500, 4))
    decimals = rng.integers(0, 17, 500)
    boxes = [[round(v, int(d)) for v in row] for row, d in zip(numbers.tolist(), decimals)]
    entries = [{**PLAIN, "id": n, "bbox": box} for n, box in enumerate(boxes)]
    text = ", ".join(map(json.dumps, entries)) + ', {"id": '
    taken, place = whole_elements(text, 0, SCAN)
    assert taken == entries and text[place:] == '{"id": ' and len(orjson_calls) == 1


def test_little_is_kept_of_plain_entries(tmp_path):
    path = tmp_path / "instances_x.json"
    entries = [{**PLAIN, "id": n, "segmentation": [POLYGON]} for n in range(50)]
    path.write_text(json.dumps(content_of(entries)))
    content, annotations = read_annotations(path, with_masks=True, hook=lambda entry: entry)
    assert content["annotations"] == [] and len(annotations) == 50
    # The last one of a list has no comma behind it, and goes the other way to the same place.
    assert not annotations.odd and not annotations.is_odd.any()
    assert annotations[49] == {"id": 49, "image_id": 3, "category_id": 4}
    np.testing.assert_array_equal(annotations.coordinates, np.float32(POLYGON * 50))
