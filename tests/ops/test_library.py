"""Loading the operator library, and the self-tests that `doctor` runs."""

import subprocess
import sys
import threading

import mxnet as mx
import pytest

from sniper import ops
from sniper.errors import OpsError
from sniper.ops import library, selftest


def test_loading_again_and_from_threads_is_harmless():
    threads = [threading.Thread(target=ops.load_library) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for _ in range(5):
        ops.load_library()
    assert hasattr(mx.sym, "MultiProposal")


def test_path_is_absolute_and_names_a_shared_library():
    assert library.library_path().is_absolute()
    assert library.library_path().suffix == ".so"


def test_missing_library_says_how_to_mend_it(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "MARKER_OPERATOR", "NoSuchOperator")
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "libsniper_ops.so")
    with pytest.raises(OpsError, match="compile.sh"):
        ops.load_library()


def test_broken_library_is_an_ops_error(monkeypatch, tmp_path):
    path = tmp_path / "libsniper_ops.so"
    path.write_bytes(b"not a library")
    monkeypatch.setattr(library, "MARKER_OPERATOR", "NoSuchOperator")
    monkeypatch.setattr(library, "library_path", lambda: path)
    with pytest.raises(OpsError, match="cannot load"):
        ops.load_library()


def test_a_fresh_process_loads_lazily():
    code = (
        "import sniper.ops, mxnet as mx\n"
        "assert not hasattr(mx.nd, 'MultiProposal')\n"
        "from sniper.ops.selftest import SELF_TESTS\n"
        "SELF_TESTS['multi_proposal']()\n"
        "assert hasattr(mx.nd, 'MultiProposal')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", sorted(selftest.SELF_TESTS))
def test_self_test(name):
    selftest.SELF_TESTS[name]()


def test_self_test_raises_on_a_wrong_number():
    with pytest.raises(OpsError, match="self-test of thing failed"):
        selftest.expect("thing", "output", mx.nd.array([1.0]), [2.0])


def test_every_operator_of_the_library_has_a_self_test():
    assert set(selftest.SELF_TESTS) == set(ops.__all__) - {"load_library"}
