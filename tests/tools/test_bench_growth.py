"""The growth bench with made-up costs, and its jobs at small sizes."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bench import growth
from bench.growth_fit import Growth, GrowthJob, fit_exponent, markdown, measure

SCRIPT = Path(growth.__file__)


def job_of(cost, bound=1.25, name="made up"):
    """A job whose "call" is its cost."""
    return GrowthJob(name, "things", 100, lambda size: cost(size), bound)


def cost_itself(call):
    return call


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.3, 2.0, 3.0])
def test_the_exponent_of_a_power_is_found(exponent):
    sizes = [100, 200, 400, 800]
    costs = [3e-4 * size**exponent for size in sizes]
    assert fit_exponent(sizes, costs) == pytest.approx(exponent)
    assert fit_exponent(sizes[::-1], costs[::-1]) == pytest.approx(exponent)


def test_a_constant_part_at_small_sizes_does_not_hide_quadratic_work():
    sizes = [100, 200, 400, 800, 1600]
    hidden = [1e5 + size**2 for size in sizes]
    assert 1.5 < fit_exponent(sizes, hidden) < 2
    assert fit_exponent(sizes[:3], hidden[:3]) < 0.8


def test_a_factor_of_all_costs_changes_nothing():
    sizes, costs = [1, 2, 4, 8], [1.0, 2.2, 4.1, 9.0]
    assert fit_exponent(sizes, costs) == pytest.approx(
        fit_exponent(sizes, [7e3 * c for c in costs])
    )


@pytest.mark.parametrize(
    ("sizes", "costs"),
    [([1, 2], [1, 2]), ([1, 2, 4], [1, 2]), ([1, 2, 4], [1, 0, 2]), ([0, 1, 2], [1, 2, 3])],
)
def test_what_cannot_be_fitted_is_refused(sizes, costs):
    with pytest.raises(ValueError, match="no exponent fits"):
        fit_exponent(sizes, costs)


def test_a_job_has_enough_sizes_to_fit():
    assert job_of(float).sizes == [100, 200, 400, 800]
    with pytest.raises(ValueError, match="made up: 1 doublings"):
        dataclasses.replace(job_of(float), doublings=1)


def test_linear_work_passes_and_quadratic_work_fails():
    linear = measure(job_of(lambda n: n), cost_itself)
    almost = measure(job_of(lambda n: n * math.log(n)), cost_itself)
    square = measure(job_of(lambda n: n**2), cost_itself)
    assert [growth.is_too_steep for growth in (linear, almost, square)] == [False, False, True]
    assert not measure(job_of(lambda n: n**2, bound=2.1), cost_itself).is_too_steep


def test_a_job_that_looks_too_steep_once_gets_a_second_chance():
    asked = []

    def cost(size):
        asked.append(size)
        return size if len(asked) > 4 else size**2

    assert not measure(job_of(cost), cost_itself).is_too_steep
    assert asked == [100, 200, 400, 800] * 2
    asked.clear()
    assert measure(job_of(cost), cost_itself, attempts=1).is_too_steep


def test_a_good_job_is_measured_once():
    asked = []
    measure(job_of(lambda size: asked.append(size) or size), cost_itself)
    assert len(asked) == 4


def test_numbers_that_are_none_are_too_steep():
    broken = Growth(job_of(float), [1, 2, 4], [1, 2, math.nan])
    assert broken.is_too_steep


def test_the_table_has_a_row_for_each_job():
    growths = [
        Growth(job_of(float, name="good"), [1000, 2000, 4000], [0.001, 0.002, 0.004]),
        Growth(job_of(float, name="bad"), [1, 2, 4], [1, 4, 16]),
    ]
    lines = markdown(growths).splitlines()
    assert lines[2] == "| good | 1,000, 2,000, 4,000 things | 1, 2, 4 | 1.00 | 1.25 | ok |"
    assert lines[3].endswith("| 2.00 | 1.25 | too steep |")
    assert len({line.count("|") for line in lines}) == 1


def run(monkeypatch, tmp_path, jobs, *arguments):
    """The exit code and the JSON of a run in which a call returns its cost."""
    monkeypatch.setattr(growth, "load_jobs", lambda package: jobs)
    monkeypatch.setattr(growth, "processor_time", lambda call, repeats: call)
    monkeypatch.setattr(growth, "ONE_THREAD", ())  # the environment is that of all tests
    file = tmp_path / "growth.json"
    code = growth.main([*arguments, "--json", str(file)])
    return code, json.loads(file.read_text())


def test_the_exit_code_tells_of_the_exponent_and_never_of_the_time(monkeypatch, tmp_path, capsys):
    slow, square = job_of(lambda n: 1e6 * n, name="slow"), job_of(lambda n: 1e-9 * n**2, name="sq")
    code, entries = run(monkeypatch, tmp_path, [slow])
    assert code == 0 and not entries[0]["too_steep"]
    assert "| slow |" in capsys.readouterr().out
    code, entries = run(monkeypatch, tmp_path, [slow, square])
    assert code == 1 and [entry["too_steep"] for entry in entries] == [False, True]
    assert entries[1]["exponent"] == pytest.approx(2)
    code, entries = run(monkeypatch, tmp_path, [slow, square], "slow")
    assert code == 0 and [entry["job"] for entry in entries] == ["slow"]


def test_a_job_that_cannot_run_fails_but_not_the_others(monkeypatch, tmp_path, capsys):
    def broken(size):
        raise OSError("no space left")

    jobs = [job_of(broken, name="broken"), job_of(float, name="good")]
    code, entries = run(monkeypatch, tmp_path, jobs)
    assert code == 1 and [entry["job"] for entry in entries] == ["good"]
    assert "broken: FAILED: no space left" in capsys.readouterr().err


def test_processor_time_is_that_of_one_run():
    runs = []
    assert growth.processor_time(lambda: runs.append(sum(range(10_000))), 3) > 0
    assert len(runs) > 3


def test_the_list_names_every_job():
    done = subprocess.run([sys.executable, str(SCRIPT), "--list"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [line.rpartition(": ")[0] for line in done.stdout.splitlines()]
    for text in ("chips of 128 px", "check-data", "suggest-scales", "soft-NMS", "evaluation"):
        assert any(text in name for name in names)
    unknown = subprocess.run([sys.executable, str(SCRIPT), "no such job"], capture_output=True)
    assert unknown.returncode == 2


@pytest.mark.parametrize("job", growth.load_jobs(growth.JOBS_PACKAGE), ids=lambda job: job.name)
def test_every_job_runs_twice(job):
    call = job.make(40)
    call()
    call()
