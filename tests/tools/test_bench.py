"""The benchmark's harness with fake sides, its inputs, and the plain cover among its peers."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sniper.native import _native

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
OPS = SCRIPTS / "bench" / "ops.py"

FAKE_CASE = '''
"""Two sides that note when they work, and some that misbehave."""
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from bench.case import Case, Job, PeerMissingError, Prepared, Side
from bench.compare import close_array

LOG = Path(__file__).with_name("log")


def note(*words):
    with open(LOG, "a") as log:
        print(*words, file=log, flush=True)


def worker(letter, factor=1.0):
    def setup(inputs, params, threads):
        def run():
            begin = time.monotonic()
            time.sleep(0.003)
            note(letter, begin, time.monotonic())
            return inputs["x"] * factor

        environment = [
            os.environ["OMP_NUM_THREADS"] == str(threads),
            "OPENBLAS_CORETYPE" not in os.environ,
            params["key"] == 5,
        ]
        return Prepared(run, lambda x: {"x": x, "environment": np.array(environment)})

    return setup


def spinning(inputs, params, threads):
    """Has a thread that never sleeps long, like a pool that waits for work."""
    def spin():
        while True:
            note("spin", time.monotonic())
            time.sleep(0.0005)

    threading.Thread(target=spin, daemon=True).start()
    return worker("B")(inputs, params, threads)


def misbehaving(action):
    def setup(inputs, params, threads):
        calls = iter(range(100))

        def run():
            if next(calls) == 2:
                action()
            return inputs["x"]

        return Prepared(run, lambda x: {"x": x})

    return setup


def die():
    print("out of luck")
    sys.stdout.flush()
    os._exit(7)


def missing(inputs, params, threads):
    raise PeerMissingError("fakelib is not installed: pip install fakelib")


def broken(inputs, params, threads):
    raise ValueError("cannot prepare this")


CASE = Case(
    name="fake",
    summary="fake sides",
    jobs=[Job("small", lambda rng: {"x": rng.normal(size=4)}, {"key": 5})],
    sides={
        "ours": Side(worker("A")),
        "same": Side(worker("B")),
        "spinning": Side(spinning),
        "different": Side(worker("C", 1.5)),
        "missing": Side(missing),
        "broken": Side(broken),
        "dies": Side(misbehaving(die)),
        "killed": Side(misbehaving(lambda: os.kill(os.getpid(), signal.SIGSEGV))),
        "hangs": Side(misbehaving(lambda: time.sleep(600))),
    },
    compare=lambda ours, peer, job, name: close_array(ours["x"], peer["x"], "x", 1e-6),
    goal={"same": 1e-3, "spinning": 1e9},
)
'''


@pytest.fixture(scope="module", autouse=True)
def bench_on_path():
    """The scripts are no package of the project: imported as `bench` from their folder."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def fake(tmp_path):
    folder = tmp_path / "cases"
    folder.mkdir()
    path = folder / "fake.py"
    path.write_text(FAKE_CASE)
    return path


def run_fake(path, peer, threads=1, rounds=3, timeout_s=60.0):
    from bench.case import load_case
    from bench.harness import Options, run_job

    case = load_case(path)
    options = Options(rounds=rounds, turn_s=0.001, timeout_s=timeout_s)
    return run_job(case, path, case.jobs[0], threads, options, [peer])


def events(path):
    lines = path.with_name("log").read_text().splitlines()
    return [(word, *map(float, rest)) for word, *rest in (line.split() for line in lines)]


def test_list_names_every_case_with_its_goals():
    done = subprocess.run([sys.executable, str(OPS), "--list"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [line.split(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert names == sorted(path.stem for path in (OPS.parent / "cases").glob("[a-z]*.py"))
    assert "multi_proposal" in names
    assert "ours against mxnet (at least 8x), openvino (at least 3x)" in done.stdout


def test_cases_are_called_like_their_files_and_jobs_are_unique():
    from bench.case import case_files, load_case

    for name, path in case_files().items():
        case = load_case(path)
        jobs = [job.name for job in case.jobs]
        assert case.name == name
        assert len(set(jobs)) == len(jobs) > 0
        for job in case.jobs:
            goals = case.goal if job.goal is None else job.goal
            assert set(goals) <= set(case.peers(job)), f"{name}: a goal against nobody"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mns"], "no case mns; there are batch, chips, coco_eval,"),
        ([], "name a case, or --all, or --list"),
        (["nms", "--peers", "opnvino"], "these cases have onnxruntime, openvino, torchvision"),
        (["nms", "--only", "7000"], "no job has these peers and this text"),
        (["nms", "--rounds", "0"], "0 is not 1 or more"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    from bench.ops import main

    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("threads", [1, 2])
def test_sides_take_turns_and_every_round_is_reported(fake, threads):
    result = run_fake(fake, "same", threads)
    peer = result.peers["same"]
    turns = [letter for letter, _ in itertools.groupby(events(fake), key=lambda event: event[0])]
    assert turns == ["A", "B"] * (1 + 3)  # outputs once, then three rounds
    assert len(peer.ours_s) == len(peer.peer_s) == 3
    assert min(peer.ours_s + peer.peer_s) >= 0.003
    assert peer.ratios(share=False) == [b / a for a, b in zip(peer.ours_s, peer.peer_s)]
    assert peer.ratios(share=True) == [a / b for a, b in zip(peer.ours_s, peer.peer_s)]
    assert peer.agreement.startswith("x: largest difference")
    assert result.meets_goal("same") is True


def test_sides_get_the_thread_count_and_a_clean_environment(fake, monkeypatch):
    from bench import harness

    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    seen = []
    original = harness.outputs_of

    def spy(*arguments):
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(harness, "outputs_of", spy)
    run_fake(fake, "same", threads=2, rounds=1)
    assert len(seen) == 2
    assert all(outputs["environment"].all() for outputs in seen)


def test_no_side_works_in_the_other_ones_turn(fake):
    result = run_fake(fake, "spinning")
    log = events(fake)
    spins = [event[1] for event in log if event[0] == "spin"]
    turns = [event[1:] for event in log if event[0] == "A"]
    assert spins and len(turns) >= 4
    assert not [t for t in spins for begin, end in turns if begin <= t <= end]
    assert result.meets_goal("spinning") is False


def test_differing_outputs_are_refused_with_numbers_and_never_timed(fake, capsys):
    from bench.ops import main

    peer = run_fake(fake, "different").peers["different"]
    assert "largest difference 3.3e-01" in peer.refused
    assert "expected at most 1e-06" in peer.refused
    assert not peer.ours_s and not peer.peer_s
    assert [event[0] for event in events(fake)] == ["A", "C"]
    options = ["--cases", str(fake.parent), "--peers", "different", "--threads", "1"]
    assert main(["fake", *options, "--rounds", "1"]) == 1
    assert "REFUSED, the outputs differ: x: largest difference" in capsys.readouterr().out


def test_a_missing_peer_is_skipped_with_a_sentence(fake, capsys, tmp_path):
    from bench.ops import main

    report = tmp_path / "report.json"
    options = ["--cases", str(fake.parent), "--peers", "same", "missing", "--threads", "1"]
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
def test_a_side_that_ends_or_hangs_gives_a_clear_error(fake, peer, timeout_s, message):
    from bench.case import BenchError

    with pytest.raises(BenchError) as error:
        run_fake(fake, peer, timeout_s=timeout_s)
    assert str(error.value).startswith(message)


def test_a_side_that_cannot_start_shows_its_reason(fake, capsys):
    from bench.ops import main

    options = ["--cases", str(fake.parent), "--peers", "broken", "--threads", "1"]
    assert main(["fake", *options]) == 1
    error = capsys.readouterr().err
    assert "FAILED: broken: ended with exit status 1 during its preparation." in error
    assert "ValueError: cannot prepare this" in error


def test_clustered_scores_are_distinct_and_keep_their_order():
    from bench.inputs import distinct

    scores = np.random.default_rng(0).integers(1, 50, (20, 30)).astype(np.float32) / 64
    moved = distinct(scores)
    assert len(np.unique(moved)) == scores.size
    np.testing.assert_allclose(moved, scores, rtol=1e-4)
    order = np.argsort(moved, axis=None)
    assert (np.diff(scores.ravel()[order]) >= 0).all()


def test_anchors_are_those_of_the_operators():
    from bench import inputs

    expected = _native.operator_anchors(inputs.STRIDE_PX, inputs.SCALES, inputs.RATIOS)
    np.testing.assert_array_equal(inputs.base_anchors(), expected)


def test_reencoded_deltas_give_a_longer_decoder_the_same_boxes():
    from bench import inputs
    from bench.cases.multi_proposal import reencoded

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
    from bench.peers.greedy_cover import load

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
