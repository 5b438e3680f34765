"""The GPU half of the MXNet glue, run without MXNet: a shim calls the operators of a copy of
libsniper_ops.so, beside which an emulated libsniper_cuda.so may lie.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.native import cuda_harness, cuda_sources
from tests.native.mining_inputs import M1, random_mining

F = np.float32
MALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
SMALL = {"scales": "(1, 2)", "ratios": "[0.5, 1, 1.5]", "rpn_post_nms_top_n": "30"}
CHIPS = {"width": "300", "height": "200", "factor": "1.5", "stride": "20", "chip_size": "64"}
POOL = {
    "spatial_scale": "0.25", "output_dim": "8", "pooled_size": "3", "trans_std": "0.1",
    "sample_per_part": "2",
}  # fmt: skip


def proposal_inputs(rng, op):
    scores = rng.random((2, 12, 5, 6))
    deltas = rng.normal(0, 0.3, (2, 24, 5, 6))
    sizes = [[80, 96, 1], [70, 90, 1]]
    if op == "MultiProposal":
        return [scores, deltas, sizes]
    gt = np.full((2, 4, 5), -1.0)
    gt[:, :2] = [[5, 5, 40, 50, 3], [20, 30, 70, 69, 1]]
    return [scores.reshape(2, 2, 30, 6), deltas, sizes, gt, [[0, 100], [10, 60]]]


def case(op):
    """Attributes, inputs, shapes of the outputs of one call."""
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 150, (20, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 40, (20, 2))])
    if op.startswith("MultiProposal"):
        shapes = [(60, 5), (60, 1), (60, 4), (60, 4), (10, 5), (10, 1)]
        number = {"MultiProposal": 2, "MultiProposalTarget": 4}.get(op, 6)
        attributes = {**SMALL, "max_masks": "5"} if number == 6 else SMALL
        return attributes, proposal_inputs(rng, op), shapes[:number]
    if op == "MaskRcnnTarget":
        polys = np.full((2, 3, 20), -1.0)
        polys[:, :, :8] = [4, 1, 6, 10, 10, 60, 12, 30]
        polys[:, :, 8:10] = [55, 4]
        rois = np.hstack([rng.integers(0, 2, (5, 1)), np.tile([8, 8, 64, 50], (5, 1))])
        return {"mask_size": "9"}, [rois, polys, [[0], [1], [-1], [2], [0]]], [(5, 9, 9)] * 2
    if op == "ChipGenerator":
        boxes[-3:] = -1
        return CHIPS, [boxes], [(100, 4), (1,)]
    if op == "MultiScaleNMS":
        rows = np.hstack([boxes, rng.uniform(0.1, 1, (20, 1))])
        indices = [rng.integers(0, n, 20) for n in (2, 3, 2)]
        indices[2][-4:] = -1
        return {"max_per_image": "5"}, [rows, *indices, [[0, 900], [20, -1]]], [
            (20, 5), (20,), (20,), (1,),
        ]  # fmt: skip
    rois = np.hstack([rng.integers(0, 2, (20, 1)), boxes])
    inputs = [rng.normal(size=(2, 8, 40, 50)), rois, rng.normal(size=(20, 2, 3, 3))]
    return POOL, inputs, [(20, 8, 3, 3)]


OPERATORS = [
    "MultiProposal", "MultiProposalTarget", "MultiProposalTargetMask", "MaskRcnnTarget",
    "ChipGenerator", "MultiScaleNMS", "DeformablePSROIPooling",
]  # fmt: skip


class Glue:
    """The operators of one copy of libsniper_ops.so."""

    def __init__(self, shim, library):
        self.shim, self.library = shim, library

    def call(self, op, device, attributes, in_shapes, inputs, out_shapes, outputs, *,
             backward=False, malloc=None):  # fmt: skip
        """The error, or an empty string; inputs and outputs are addresses."""
        message = ctypes.create_string_buffer(2000)
        keys = (ctypes.c_char_p * len(attributes))(*(key.encode() for key in attributes))
        values = (ctypes.c_char_p * len(attributes))(*(v.encode() for v in attributes.values()))
        sides = []
        for shapes, addresses in ((in_shapes, inputs), (out_shapes, outputs)):
            rows = [(ctypes.c_int64 * len(shape))(*shape) for shape in shapes]
            pointers = [ctypes.cast(row, ctypes.c_void_p) for row in rows]
            sides += [
                len(shapes), (ctypes.c_void_p * len(shapes))(*pointers),
                (ctypes.c_int * len(shapes))(*map(len, shapes)),
                (ctypes.c_void_p * len(shapes))(*addresses),
            ]  # fmt: skip
            sides.append(rows)  # kept alive
        arguments = [*sides[:4], *sides[5:9]]
        self.shim.glue_shim(
            str(self.library).encode(), op.encode(), int(backward), device.encode(),
            len(attributes), keys, values, *arguments, malloc or MALLOC(), message,
            ctypes.c_size_t(len(message)),
        )  # fmt: skip
        return message.value.decode()

    def on_cpu(self, op, attributes, arrays, out_shapes, **more):
        outputs = [np.full(shape, 77, F) for shape in out_shapes]
        problem = self.call(
            op, "cpu", attributes, [a.shape for a in arrays], [a.ctypes.data for a in arrays],
            out_shapes, [a.ctypes.data for a in outputs], **more,
        )  # fmt: skip
        assert problem == ""
        return outputs

    def on_gpu(self, device, op, attributes, arrays, out_shapes, **more):
        """The same on a device of cuda_harness."""
        scratch = []

        def allocate(_, size):
            scratch.append(device.allocate(size, 256, 0xCD))
            return scratch[-1]

        inputs = [device.allocate(a.nbytes, 16, 0) for a in arrays]
        for address, array in zip(inputs, arrays):
            device.copy_in(address, array)
        outputs = [np.empty(shape, F) for shape in out_shapes]
        addresses = [device.allocate(a.nbytes, 16, 0xCD) for a in outputs]
        problem = self.call(
            op, "gpu", attributes, [a.shape for a in arrays], inputs, out_shapes, addresses,
            malloc=MALLOC(allocate), **more,
        )  # fmt: skip
        assert (problem, device.finish()) == ("", "")
        for address, array in zip(addresses, outputs):
            device.copy_out(address, array)
        assert all(device.free(address) for address in [*inputs, *addresses, *scratch])
        return outputs


@pytest.fixture(scope="module")
def shim(cuda_build_folder):
    mxnet = Path(importlib.util.find_spec("mxnet").origin).parent
    source = cuda_sources.EMULATION / "glue_shim.cc"
    library = cuda_build_folder / f"glue_shim-{cuda_sources.content_hash(source)}.so"
    if not library.is_file():
        flags = ["-std=c++17", "-O1", "-fPIC", "-shared", f"-I{mxnet / 'include'}", "-ldl"]
        errors = cuda_sources.run_compiler([source, *flags], library)
        assert not errors
    return ctypes.CDLL(str(library))


@pytest.fixture
def glue(shim, tmp_path):
    """A copy of the operator library without a CUDA library beside it."""
    return Glue(shim, Path(shutil.copy(cuda_sources.NATIVE / "libsniper_ops.so", tmp_path)))


@pytest.fixture(scope="module")
def emulated(shim, cuda_build_folder, tmp_path_factory):
    """A copy of the operator library with the emulated kernels beside it, and their device."""
    folder = tmp_path_factory.mktemp("emulated")
    built, errors = cuda_sources.build_emulated(cuda_build_folder)
    kernels = shutil.copy(built, folder / "libsniper_cuda.so")
    device = cuda_harness.EmulatedDevice(kernels, errors)
    operators = shutil.copy(cuda_sources.NATIVE / "libsniper_ops.so", folder)
    return Glue(shim, Path(operators)), device


def float_arrays(values):
    return [np.ascontiguousarray(value, F) for value in values]


@pytest.mark.parametrize("op", OPERATORS)
def test_gpu_forward_equals_cpu_forward(emulated, op):
    glue, device = emulated
    attributes, inputs, shapes = case(op)
    arrays = float_arrays(inputs)
    wanted = glue.on_cpu(op, attributes, arrays, shapes)
    got = glue.on_gpu(device, op, attributes, arrays, shapes)
    assert len({array.tobytes() for array in wanted}) > 1 or len(wanted) == 1
    for a, b in zip(got, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("op", OPERATORS[:-1])
def test_gpu_backward_is_zero(emulated, op):
    glue, device = emulated
    attributes, inputs, _ = case(op)
    arrays = float_arrays(inputs)
    gradients = glue.on_gpu(
        device, op, attributes, arrays, [a.shape for a in arrays], backward=True
    )
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("with_trans", [True, False])
def test_gpu_pooling_has_the_gradients_of_the_cpu(emulated, with_trans):
    glue, device = emulated
    attributes, inputs, shapes = case("DeformablePSROIPooling")
    attributes = {**attributes, "no_trans": str(not with_trans)}
    inputs = float_arrays(inputs if with_trans else inputs[:2])
    forward = glue.on_cpu("DeformablePSROIPooling", attributes, inputs, shapes)
    arrays = [np.ones(shapes[0], F), *inputs, *forward]
    grads = [array.shape for array in inputs]
    call = ("DeformablePSROIPooling", attributes, arrays, grads)
    wanted = glue.on_cpu(*call, backward=True)
    got = glue.on_gpu(device, *call, backward=True)
    assert wanted[0].any()
    assert not got[1].any()
    for a, b in zip(got, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("op", OPERATORS)
def test_without_the_library_the_error_says_how_to_build_it(glue, op, backward):
    attributes, inputs, shapes = case(op)
    in_shapes = [np.shape(value) for value in inputs]
    if backward and op == "DeformablePSROIPooling":
        in_shapes = [*shapes, *in_shapes, *shapes]
    shapes = [np.shape(value) for value in inputs] if backward else shapes
    nothing = [[None] * len(side) for side in (in_shapes, shapes)]
    problem = glue.call(
        op, "gpu", attributes, in_shapes, nothing[0], shapes, nothing[1], backward=backward
    )
    assert problem.startswith(f"{op}: the CUDA kernels are missing (")
    assert str(glue.library.parent / "libsniper_cuda.so") in problem
    assert problem.endswith("build them with `bash scripts/compile.sh --cuda`, or run on the CPU.")


def empty_call(glue, op, scale=1):
    """A forward call whose tensors are null, with maps `scale` times as large."""
    attributes, inputs, shapes = case(op)
    in_shapes = [np.shape(value) for value in inputs]
    in_shapes[:2] = [(n * scale, c, h, w) for n, c, h, w in in_shapes[:2]]
    nothing = [[None] * len(side) for side in (in_shapes, shapes)]
    return glue.call(op, "gpu", attributes, in_shapes, nothing[0], shapes, nothing[1])


def test_a_library_that_does_not_load_is_named(glue):
    (glue.library.parent / "libsniper_cuda.so").write_text("no library", encoding="utf-8")
    problem = empty_call(glue, "MultiProposal")
    assert problem.startswith("MultiProposal: the CUDA kernels do not load (")
    assert "compile.sh --cuda --force" in problem


def test_an_older_library_is_named(glue, cuda_build_folder):
    source = cuda_sources.NATIVE / "common" / "device_cuda.cu"
    library, errors = cuda_sources.build_emulated(cuda_build_folder, [source])
    assert not errors
    shutil.copy(library, glue.library.parent / "libsniper_cuda.so")
    problem = empty_call(glue, "MultiProposal")
    start = "MultiProposal: libsniper_cuda.so has no function sniper_multi_proposal_"
    assert problem.startswith(start)
    assert problem.endswith(": rebuild it with `bash scripts/compile.sh --cuda --force`.")


def test_scratch_memory_beyond_the_allocator_is_refused(emulated):
    problem = empty_call(emulated[0], "MultiProposal", 1_000_000)
    assert problem.startswith("MultiProposal: this call needs ")
    assert "at most 2147483647: use fewer images per batch or smaller maps." in problem


def test_errors_of_cuda_are_quoted(emulated):
    problem = empty_call(emulated[0], "MultiProposal", 15_000_000)
    assert problem == "MultiProposal: CUDA error 1 (emulated CUDA error)."


def test_roi_maxima_on_the_gpu_equal_the_cpu(emulated):
    glue, device = emulated
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2, 5, 6, 7)).astype(F)
    rois = F([[0, 1, 2, 20, 21], [1, 0, 0, 24, 20], [2, 0, 0, 9, 9]])
    attributes = {"spatial_scale": "0.25", "pooled_size": "2"}
    call = ("ROIMaxMeanPooling", attributes, [data, rois], [(3, 5)])
    (output,) = glue.on_cpu(*call)
    assert output[:2].all() and not output[2].any()
    np.testing.assert_array_equal(glue.on_gpu(device, *call)[0], output)
    call = (
        "ROIMaxMeanPooling",
        attributes,
        [output + 1, data, rois, output],
        [(2, 5, 6, 7), (3, 5)],
    )
    gradient, rois_gradient = glue.on_cpu(*call, backward=True)
    assert gradient.any() and not rois_gradient.any()
    for own, wanted in zip(glue.on_gpu(device, *call, backward=True), (gradient, rois_gradient)):
        np.testing.assert_array_equal(own, wanted)


@pytest.mark.parametrize("ignored", [0, 3])
def test_mined_anchors_on_the_gpu_equal_the_cpu(emulated, ignored):
    glue, device = emulated
    arrays, boxes = random_mining(np.random.default_rng(0), 2, 5, 6, 9, ignored, **M1)
    attributes = {"scales": "(1, 2)", "feature_stride": "8", "border": "16", "batch_size": "30"}
    if ignored:
        arrays.append(boxes)
        attributes["with_ignore"] = "True"
    call = ("AnchorMiningTarget", attributes, arrays, [(2, 60), (2, 8, 5, 6), (2, 8, 5, 6), (2, 2)])
    wanted = glue.on_cpu(*call)
    assert wanted[3].any(0).all()
    for own, output in zip(glue.on_gpu(device, *call), wanted):
        np.testing.assert_allclose(own, output, rtol=1e-6, atol=1e-6)
    shapes = [array.shape for array in arrays]
    call = ("AnchorMiningTarget", attributes, [*wanted, *arrays, *wanted], shapes)
    for gradient in glue.on_gpu(device, *call, backward=True):
        assert not gradient.any()


def test_relu6_on_the_gpu_equals_the_cpu(emulated):
    glue, device = emulated
    data = np.random.default_rng(0).uniform(-3, 9, (2, 5, 7)).astype(F)
    (output,) = glue.on_cpu("ReLU6", {}, [data], [data.shape])
    np.testing.assert_array_equal(output, np.clip(data, 0, 6))
    np.testing.assert_array_equal(glue.on_gpu(device, "ReLU6", {}, [data], [data.shape])[0], output)
    call = ("ReLU6", {}, [data + 1, data, output], [data.shape])
    (gradient,) = glue.on_cpu(*call, backward=True)
    np.testing.assert_array_equal(gradient, np.where((data < 0) | (data > 6), 0, data + 1))
    np.testing.assert_array_equal(glue.on_gpu(device, *call, backward=True)[0], gradient)
