"""Every host function under random input: a well-formed result or one OpsError, never a crash."""

from __future__ import annotations

import copy
import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sniper.errors import OpsError
from tests.native import fuzz_native_cases

HERE = Path(__file__).resolve()
EXAMPLES = int(os.environ.get("SNIPER_FUZZ_EXAMPLES", "25"))

SIZES = st.fixed_dictionaries(
    {
        "images": st.integers(0, 3),
        "height": st.integers(0, 5),
        "width": st.integers(0, 5),
        "scales": st.integers(1, 3),
        "ratios": st.integers(1, 2),
        "post": st.integers(1, 40),
        "rows": st.integers(0, 6),
        "masks": st.integers(1, 6),
        "poison": st.sampled_from([0, 0, 0.05, 0.5]),
    }
)
FUZZING = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def arrays_of(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def assert_same(outputs, expected):
    for output, wanted in zip(arrays_of(outputs), arrays_of(expected)):
        np.testing.assert_array_equal(output, wanted)


@pytest.mark.parametrize("name", fuzz_native_cases.CASES)
@FUZZING
@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
def test_right_types_give_a_well_formed_result(name, sizes, seed):
    """Whatever the numbers are: shapes, ranges and finiteness hold, and the input is untouched."""
    function, arguments, check = fuzz_native_cases.CASES[name](sizes, np.random.default_rng(seed))
    before = copy.deepcopy(arguments)
    outputs = function(**arguments)
    check(outputs)
    assert_same(function(**arguments), outputs)
    for key, value in before.items():
        np.testing.assert_array_equal(arguments[key], value)


@pytest.mark.parametrize("name", fuzz_native_cases.CASES)
@FUZZING
@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
def test_wrong_arguments_give_a_result_or_one_error(name, sizes, seed):
    rng = np.random.default_rng(seed)
    function, arguments, _ = fuzz_native_cases.CASES[name](sizes, rng)
    try:
        outputs = function(**fuzz_native_cases.mutate(arguments, rng))
    except OpsError as error:
        first = str(error).splitlines()[0]
        assert 10 < len(str(error)) < 600 and first.strip()
        return
    assert all(isinstance(output, np.ndarray) for output in arrays_of(outputs))


@pytest.mark.parametrize("name", fuzz_native_cases.CASES)
def test_threads_and_callers_do_not_change_the_result(name):
    """1, 2 and 5 OpenMP threads, and four Python threads at once."""
    sizes = {"images": 3, "height": 5, "width": 5, "scales": 3, "ratios": 2, "post": 30, "rows": 5}
    sizes.update(masks=4, poison=0.02)
    function, arguments, _ = fuzz_native_cases.CASES[name](sizes, np.random.default_rng(1))
    expected = function(**arguments)
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    try:
        for threads in (1, 2, 5):
            omp.omp_set_num_threads(threads)
            assert_same(function(**arguments), expected)
    finally:
        omp.omp_set_num_threads(before)
    results = []
    callers = [
        threading.Thread(target=lambda: results.extend(function(**arguments) for _ in range(10)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(results) == 40
    for result in results:
        assert_same(result, expected)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_many_examples_in_a_child_process():
    """A crash would end the child only; its output names the failing example."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE)],
        env={**os.environ, "SNIPER_FUZZ_EXAMPLES": "2000"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
