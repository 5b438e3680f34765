"""`sniper doctor` on healthy and on broken installations."""

from __future__ import annotations

import sys
import types

import pytest

from sniper.errors import OpsError
from sniper.evaluation import evaluators
from sniper.tools import doctor


@pytest.fixture
def fake_parts(monkeypatch):
    """A healthy installation without the weight of the real one."""
    mxnet = types.ModuleType("mxnet")
    mxnet.__version__ = "1.9.1"
    mxnet.context = types.SimpleNamespace(num_gpus=lambda: 0)
    native = types.ModuleType("sniper.native._native")
    native.__file__, native.isa = "native.so", lambda: "avx2"
    ops = types.ModuleType("sniper.ops")
    ops.load_library = lambda: None
    selftest = types.ModuleType("sniper.ops.selftest")
    selftest.SELF_TESTS = {"first_op": lambda: None, "second_op": lambda: None}
    modules = {module.__name__: module for module in (mxnet, native, ops, selftest)}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def lines_of(capsys) -> dict[str, str]:
    """First word by name of the check."""
    rows = (line.split(None, 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    return {rest.split(":")[0]: status for status, rest in rows if status in ("OK", "FAILED")}


def test_healthy_installation(fake_parts, capsys):
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert out.endswith("Everything works.\n")
    assert "FAILED" not in out
    for part in ("Python: 3.", "MXNet: 1.9.1", "NumPy: 1.", "OpenCV: ", "pycocotools: ", "CPU: ",
                 "OMP_NUM_THREADS=", "native functions: native.so, instruction set avx2",
                 "GPUs: MXNet sees none", "operator first_op: right result",
                 "operator second_op: right result"):  # fmt: skip
        assert part in out


@pytest.mark.parametrize("has, words", [(True, "exact but for rounding"), (False, "less exact")])
def test_int8_is_judged(fake_parts, monkeypatch, capsys, has, words):
    monkeypatch.setattr(doctor, "has_int8_instructions", lambda: has)
    assert doctor.main([]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "INT8 in MXNet: " in line)
    assert "AVX-512 VNNI" in line and words in line


def test_the_evaluator_is_the_one_that_evaluations_take(fake_parts, monkeypatch, capsys):
    assert list(doctor._EVALUATORS) == [
        evaluators._MODULES[name] for name in evaluators._BY_SPEED[:2]
    ]
    for name in (*doctor._EVALUATORS, "pycocotools"):
        fake = types.ModuleType(name)
        fake.__version__ = "1.2"
        monkeypatch.setitem(sys.modules, name, fake)
        assert doctor.main([]) == 0
        chosen = name.replace("_", "-")
        assert f"OK      COCO evaluation: by {chosen} " in capsys.readouterr().out
        monkeypatch.setitem(sys.modules, name, None)
        if name == doctor._EVALUATORS[-1]:
            monkeypatch.undo()
            for one in doctor._EVALUATORS:
                monkeypatch.setitem(sys.modules, one, None)
            break
    assert "by pycocotools (hotcoco or faster-coco-eval is faster" in doctor._evaluator().detail


def test_missing_mxnet(fake_parts, monkeypatch, capsys):
    def load_library():
        raise ModuleNotFoundError("No module named 'mxnet'", name="mxnet")

    monkeypatch.setitem(sys.modules, "mxnet", None)
    fake_parts["sniper.ops"].load_library = load_library
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED  MXNet: ModuleNotFoundError" in out
    assert "GPUs" not in out
    assert "FAILED  operator library" in out
    assert out.endswith("To mend: pip install -r requirements.txt\n")


def test_an_installation_without_mxnet_on_purpose(fake_parts, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "mxnet", None)
    monkeypatch.setattr(doctor, "OPERATORS", tmp_path / "none.so")
    monkeypatch.setattr(doctor, "installed_engines", list)
    assert doctor.main([]) == 1  # nothing detects here
    assert "ONNX engines: none of onnxruntime, openvino" in capsys.readouterr().out
    engine = types.ModuleType("onnxruntime")
    engine.__version__ = "1.32.0"
    monkeypatch.setitem(sys.modules, "onnxruntime", engine)
    monkeypatch.setattr(doctor, "installed_engines", lambda: ["onnxruntime"])
    numpy = types.ModuleType("numpy")
    numpy.__version__ = "2.3.0"
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "OK      MXNet: not installed: nothing can be trained" in out
    assert "OK      ONNX engine onnxruntime: 1.32.0, taken unless" in out
    assert "operator" not in out and out.endswith("Everything works.\n")


def test_missing_compiled_parts(fake_parts, monkeypatch, capsys):
    def load_library():
        raise OpsError("libsniper_ops.so is missing", fix="bash scripts/compile.sh")

    monkeypatch.setitem(sys.modules, "sniper.native._native", None)
    fake_parts["sniper.ops"].load_library = load_library
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED  native functions: ModuleNotFoundError" in out
    assert "FAILED  operator library: OpsError: libsniper_ops.so is missing" in out
    assert "first_op" not in out
    assert out.endswith("2 check(s) failed. To mend: bash scripts/compile.sh\n")


def test_a_wrong_limit_of_the_instruction_set_is_named(fake_parts, capsys):
    def refuse():
        raise OpsError("The environment variable SNIPER_MAX_ISA is 'sse', expected avx512 or ...")

    fake_parts["sniper.native._native"].isa = refuse
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED  native functions: OpsError: The environment variable SNIPER_MAX_ISA is" in out
    assert out.endswith("To mend: unset SNIPER_MAX_ISA\n")


@pytest.mark.parametrize(
    "error", [OpsError("rois differ"), RuntimeError("mxnet says no"), ValueError(), TypeError("x")]
)
def test_failing_self_test_does_not_hide_the_others(fake_parts, capsys, error):
    def fail():
        raise error

    fake_parts["sniper.ops.selftest"].SELF_TESTS["first_op"] = fail
    assert doctor.main([]) == 1
    statuses = lines_of(capsys)
    assert statuses["operator first_op"] == "FAILED"
    assert statuses["operator second_op"] == "OK"


def test_missing_self_tests(fake_parts, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sniper.ops.selftest", None)
    assert doctor.main([]) == 1
    assert lines_of(capsys)["operator self-tests"] == "FAILED"


def test_a_missing_driver_is_no_failure(fake_parts, capsys):
    def num_gpus():
        raise RuntimeError("no driver")

    fake_parts["mxnet"].context.num_gpus = num_gpus
    assert doctor.main([]) == 0
    assert "GPUs: none (RuntimeError: no driver)" in capsys.readouterr().out


@pytest.mark.parametrize("built", [True, False])
def test_gpus_need_the_cuda_kernels(fake_parts, monkeypatch, tmp_path, capsys, built):
    monkeypatch.setattr(doctor, "CUDA_LIBRARY", tmp_path / "libsniper_cuda.so")
    if built:
        doctor.CUDA_LIBRARY.touch()
    fake_parts["mxnet"].context.num_gpus = lambda: 2
    assert doctor.main([]) == (0 if built else 1)
    out = capsys.readouterr().out
    assert "GPUs: MXNet sees 2" in out
    assert ("OK      CUDA kernels: built" in out) == built
    assert ("To mend: bash scripts/compile.sh --cuda" in out) != built


@pytest.mark.parametrize("error", [OSError("libgomp.so.1: missing"), AttributeError("np.bool")])
def test_mxnet_that_breaks_on_import(fake_parts, monkeypatch, capsys, error):
    real_import = doctor.importlib.import_module

    def import_module(name):
        if name == "mxnet":
            raise error
        return real_import(name)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    assert doctor.main([]) == 1
    assert f"FAILED  MXNet: {type(error).__name__}" in capsys.readouterr().out


def test_numpy_2_is_named(fake_parts, monkeypatch, capsys):
    numpy = types.ModuleType("numpy")
    numpy.__version__ = "2.1.0"
    monkeypatch.setitem(sys.modules, "numpy", numpy)
    assert doctor.main([]) == 1
    assert "FAILED  NumPy: 2.1.0" in capsys.readouterr().out


def test_old_python_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_OLDEST_PYTHON", (9, 9))
    assert not doctor._python().ok


def test_bad_flag(capsys):
    assert doctor.main(["--nonsense"]) == 2
    assert doctor.main(["--help"]) == 0
