"""The minimal operator in the comment at the top of common/op.h: it compiles, and MXNet runs it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "lib"
NATIVE = LIBRARY / "sniper" / "native"
HEADER = """
#include <cstdint>
namespace sniper {{
{declarations}
}}
"""
LOOP = """
#include "scale/scale.h"
namespace sniper {
void scale_cpu(const ScaleParams& params, const float* data, float* output) {
  for (std::int64_t i = 0; i < params.size; ++i) output[i] = params.factor * data[i];
}
}
"""
USE = """
import sys
import sniper
import mxnet as mx

mx.library.load(sys.argv[1], verbose=False)
data = mx.nd.arange(8).reshape((2, 4))
assert mx.nd.Scale(data, factor=3).asnumpy().tolist() == [[0, 3, 6, 9], [12, 15, 18, 21]]
assert mx.nd.Scale(data).asnumpy().tolist() == data.asnumpy().tolist()
symbol = mx.sym.load_json(mx.sym.Scale(mx.sym.Variable("data"), factor=2).tojson())
executor = symbol.simple_bind(mx.cpu(), data=(2, 4), grad_req="write")
executor.arg_dict["data"][:], executor.grad_dict["data"][:] = data, 7
assert executor.forward(is_train=True)[0].asnumpy()[1].tolist() == [8, 10, 12, 14]
executor.backward([mx.nd.ones((2, 4))])
assert not executor.grad_dict["data"].asnumpy().any()
for tensor, attributes in (
    (data, {"factor": 101}), (data, {"colour": 1}), (mx.nd.ones((2, 3)), {}),
):
    try:
        mx.nd.Scale(tensor, **attributes)
    except mx.base.MXNetError as error:
        print(error)
"""


def example():
    """The two pieces of code: the declarations and the glue."""
    text = (NATIVE / "common" / "op.h").read_text(encoding="utf-8").split("#ifndef")[0]
    pieces = re.findall(r"(?:^//(?:   .*)?\n)+", text, re.MULTILINE)
    code = [re.sub(r"^//(   )?", "", piece, flags=re.MULTILINE).strip() for piece in pieces]
    return [piece for piece in code if piece]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    declarations, glue = example()
    folder = tmp_path_factory.mktemp("operator")
    (folder / "scale").mkdir()
    (folder / "scale" / "scale.h").write_text(HEADER.format(declarations=declarations))
    (folder / "scale" / "scale_cpu.cc").write_text(LOOP)
    (folder / "scale" / "scale_mxnet.cc").write_text(glue)
    mxnet = Path(importlib.util.find_spec("mxnet").origin).parent
    subprocess.run(
        [compiler, "-std=c++17", "-fPIC", "-shared", f"-I{folder}", f"-I{NATIVE}",
         f"-I{mxnet / 'include'}", f"-I{mxnet / 'src'}", *map(str, folder.glob("scale/*.cc")),
         str(NATIVE / "library_mxnet.cc"), str(NATIVE / "common" / "isa_cpu.cc"),
         "-o", str(folder / "libscale.so")],
        check=True, timeout=280,
    )  # fmt: skip
    return folder / "libscale.so"


def test_the_example_runs_in_mxnet(library):
    done = subprocess.run(
        [sys.executable, "-c", USE, str(library)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Scale: attribute 'factor' is '101', expected a number from 0 to 100.",
        "Scale: unknown attribute 'colour'.",
        "Scale: input 'data' has shape (2, 3), expected (rows, 4).",
    ]
