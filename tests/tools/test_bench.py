"""The benchmark's harness with fake sides, its inputs, and the plain cover among its peers."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import harness, inputs
from bench.case import BenchError, case_modules, load_case
from bench.cases.multi_proposal import reencoded
from bench.harness import Options, run_job
from bench.inputs import distinct
from bench.ops import main
from bench.peers.greedy_cover import load
from bench.side import timed_turn
from sniper.native import _native
from tests.tools.bench_cases.fake import CASE

OPS = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "ops.py"
CASES = "tests.tools.bench_cases"
FAKE = f"{CASES}.fake"


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Where the sides of the fake case note what they do."""
    path = tmp_path / "log"
    monkeypatch.setenv("SNIPER_TEST_BENCH_LOG", str(path))
    return path


def run_fake(peer, threads=1, rounds=3, timeout_s=60.0):
    options = Options(rounds=rounds, turn_s=0.001, timeout_s=timeout_s)
    return run_job(CASE, FAKE, CASE.jobs[0], threads, options, [peer])


def events(log):
    lines = log.read_text().splitlines()
    return [(word, *map(float, rest)) for word, *rest in (line.split() for line in lines)]


def test_list_names_every_case_with_its_goals():
    done = subprocess.run([sys.executable, str(OPS), "--list"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [line.split(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert names == sorted(path.stem for path in (OPS.parent / "cases").glob("[a-z]*.py"))
    assert "multi_proposal" in names
    assert "ours against mxnet (at least 8x), openvino (at least 3x)" in done.stdout


def test_cases_are_called_like_their_files_and_jobs_are_unique():
    for name, module in case_modules().items():
        case = load_case(module)
        jobs = [job.name for job in case.jobs]
        assert case.name == name
        assert len(set(jobs)) == len(jobs) > 0
        for job in case.jobs:
            goals = case.goal if job.goal is None else job.goal
            assert set(goals) <= set(case.peers(job)), f"{name}: a goal against nobody"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mns"], "no case mns; there are anchor_mining, batch, chips,"),
        ([], "name a case, or --all, or --list"),
        (["nms", "--peers", "opnvino"], "these cases have onnxruntime, openvino, torchvision"),
        (["nms", "--only", "7000"], "no job has these peers and this text"),
        (["nms", "--rounds", "0"], "0 is not 1 or more"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("threads", [1, 2])
def test_sides_take_turns_and_every_round_is_reported(log, threads):
    result = run_fake("same", threads)
    peer = result.peers["same"]
    turns = [letter for letter, _ in itertools.groupby(events(log), key=lambda event: event[0])]
    assert turns == ["A", "B"] * (1 + 3)  # outputs once, then three rounds
    assert len(peer.ours_s) == len(peer.peer_s) == 3
    assert min(peer.ours_s + peer.peer_s) >= 0.003
    assert peer.ratios(share=False) == [b / a for a, b in zip(peer.ours_s, peer.peer_s)]
    assert peer.ratios(share=True) == [a / b for a, b in zip(peer.ours_s, peer.peer_s)]
    assert peer.agreement.startswith("x: largest difference")
    assert result.meets_goal("same") is True


def test_cpu_time_does_not_count_waiting():
    calls = []

    def run():
        calls.append(time.sleep(0.02))

    wall_s, _ = timed_turn(run, 0.001)
    cpu_s, count = timed_turn(run, 0.001, clock=time.process_time)
    assert cpu_s < 0.01 < 0.02 <= wall_s
    assert len(calls) == 2 + 1 + count


def test_sides_get_the_thread_count_and_a_clean_environment(log, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    seen = []
    original = harness.outputs_of

    def spy(*arguments):
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(harness, "outputs_of", spy)
    run_fake("same", threads=2, rounds=1)
    assert len(seen) == 2
    assert all(outputs["environment"].all() for outputs in seen)


def test_no_side_works_in_the_other_ones_turn(log):
    result = run_fake("spinning")
    seen = events(log)
    spins = [event[1] for event in seen if event[0] == "spin"]
    turns = [event[1:] for event in seen if event[0] == "A"]
    assert spins and len(turns) >= 4
    assert not [t for t in spins for begin, end in turns if begin <= t <= end]
    assert result.meets_goal("spinning") is False


def test_differing_outputs_are_refused_with_numbers_and_never_timed(log, capsys):
    peer = run_fake("different").peers["different"]
    assert "largest difference 3.3e-01" in peer.refused
    assert "expected at most 1e-06" in peer.refused
    assert not peer.ours_s and not peer.peer_s
    assert [event[0] for event in events(log)] == ["A", "C"]
    options = ["--cases", CASES, "--peers", "different", "--threads", "1"]
    assert main(["fake", *options, "--rounds", "1"]) == 1
    assert "REFUSED, the outputs differ: x: largest difference" in capsys.readouterr().out


def test_a_missing_peer_is_skipped_with_a_sentence(log, capsys, tmp_path):
    report = tmp_path / "report.json"
    options = ["--cases", CASES, "--peers", "same", "missing", "--threads", "1"]
    options += ["--rounds", "2", "--turn-time", "0.001", "--markdown", "--json", str(report)]
    assert main(["fake", *options]) == 0
    printed = capsys.readouterr().out
    assert "missing: skipped: fakelib is not installed: pip install fakelib" in printed
    assert "| fake | small | 1 | same |" in printed
    assert "at least 0.001x: met" in printed
    results = {row["peer"]: row for row in json.loads(report.read_text())["results"]}
    assert len(results["same"]["ours_s"]) == 2 and results["same"]["meets_goal"]
    assert results["missing"]["skipped"] and not results["missing"]["ours_s"]


@pytest.mark.parametrize(
    ("peer", "timeout_s", "message"),
    [
        ("dies", 60.0, "dies: ended with exit status 7 during a timed turn.\n  out of luck"),
        ("killed", 60.0, "killed: killed by signal 11 during a timed turn."),
        ("hangs", 3.0, "hangs: no answer within 3 s during a timed turn."),
    ],
)
def test_a_side_that_ends_or_hangs_gives_a_clear_error(log, peer, timeout_s, message):
    with pytest.raises(BenchError) as error:
        run_fake(peer, timeout_s=timeout_s)
    assert str(error.value).startswith(message)


def test_a_side_that_cannot_start_shows_its_reason(log, capsys):
    options = ["--cases", CASES, "--peers", "broken", "--threads", "1"]
    assert main(["fake", *options]) == 1
    error = capsys.readouterr().err
    assert "FAILED: broken: ended with exit status 1 during its preparation." in error
    assert "ValueError: cannot prepare this" in error


def test_clustered_scores_are_distinct_and_keep_their_order():
    scores = np.random.default_rng(0).integers(1, 50, (20, 30)).astype(np.float32) / 64
    moved = distinct(scores)
    assert len(np.unique(moved)) == scores.size
    np.testing.assert_allclose(moved, scores, rtol=1e-4)
    order = np.argsort(moved, axis=None)
    assert (np.diff(scores.ravel()[order]) >= 0).all()


def test_anchors_are_those_of_the_operators():
    expected = _native.operator_anchors(inputs.STRIDE_PX, inputs.SCALES, inputs.RATIOS)
    np.testing.assert_array_equal(inputs.base_anchors(), expected)


def test_reencoded_deltas_give_a_longer_decoder_the_same_boxes():
    maps = inputs.rpn_maps(np.random.default_rng(1), 5, 7, 1, clustered=True)

    def per_anchor(planes):
        return planes.reshape(21, 4, 5, 7).transpose(0, 2, 3, 1).reshape(-1, 4).astype(np.float64)

    anchors = inputs.all_anchors(5, 7).reshape(-1, 4).astype(np.float64)
    sides = anchors[:, 2:] - anchors[:, :2] + 1
    deltas = per_anchor(maps["bbox_pred"])
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2 + deltas[:, :2] * sides
    half = (np.exp(deltas[:, 2:]) * sides - 1) / 2
    expected = np.hstack([centres - half, centres + half])
    # A decoder without the two -1: centre at the pixel's right edge, sizes not reduced.
    moved = per_anchor(reencoded(maps["bbox_pred"]))
    centres = anchors[:, :2] + 0.5 * sides + moved[:, :2] * sides
    half = np.exp(moved[:, 2:]) * sides / 2
    np.testing.assert_allclose(np.hstack([centres - half, centres + half]), expected, atol=2e-3)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_plain_cover_and_our_kernel_choose_the_same_chips():
    cover = load()
    rng = np.random.default_rng(3)
    chips = 0
    for seed in range(150):
        width, height = (int(n) for n in rng.integers(20, 700, 2))
        factor = float(rng.choice([3.0, 1.667, 512 / 640, 0.31]))
        size, stride = int(rng.integers(20, 513)), int(rng.integers(7, 60))
        count = int(rng.choice([0, 1, 8, 60]))
        corners = rng.uniform(-30, [width, height], (count, 2))
        corners += np.where(rng.random((count, 1)) < 0.5, corners.round() - corners, 0)
        boxes = np.hstack([corners, corners + rng.uniform(0, 1.2 * size / factor, (count, 2))])
        boxes = boxes.astype(np.float32)
        if count and seed % 5 == 0:
            boxes[rng.integers(count), rng.integers(4)] = np.nan
        arguments = (boxes, factor, width, height, size, stride, seed)
        expected = cover(*arguments)
        np.testing.assert_array_equal(_native.chip_cover(*arguments), expected, str(arguments[1:]))
        chips += len(expected)
    assert chips > 300
