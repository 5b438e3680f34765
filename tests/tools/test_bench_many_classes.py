"""The benchmark of thousands of classes measures what it says."""

from __future__ import annotations

from bench import many_classes
from bench.many_classes import STAGES, Size, measure, table_lines


def test_rows_go_through_all_stages_and_classes_do_not_change_the_number_of_detections(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(many_classes, "BLOCK", 2)
    rows = [measure(Size(classes, 3, 60, 20), tmp_path) for classes in (40, 400)]
    for row in rows:
        assert row["cells"] == 3 * row["classes"]
        assert row["pairs"] > row["detections"] >= 60
        assert row["ap"] > 0.5, "made-up detections find made-up objects"
        assert set(row["seconds"]) == set(STAGES) and min(row["seconds"].values()) > 0
    few, many = (row["detections"] for row in rows)
    assert abs(many - few) < 5, "equal scores may exceed the cap"
    lines = table_lines(rows)
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
