"""The CUDA kernels on a real GPU: `pytest -m gpu tests/native/test_cuda_on_gpu.py`.

Needs libsniper_cuda.so (bash scripts/compile.sh --cuda), g++, NumPy and pytest; no MXNet, which
knows no GPU after 8.6. The launchers are called with pointers and a stream, as MXNet's glue does.
The CPU kernels, compiled from the same sources as the operators, say what is right: every bit but
for the logarithms of box targets and for offset gradients, which are summed in another order.
For compute-sanitizer use `-k test_small` and SNIPER_TEST_GUARD_BYTES=0.
"""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from tests.native import cuda_calls as calls
from tests.native import cuda_harness
from tests.native import cuda_scenarios as scenarios
from tests.native.cuda_calls import MOBILENET, RESNET

pytestmark = pytest.mark.gpu

RANDOM_ROUNDS = 40
REPEATS = {"SMALL_ONES": 100, "LARGE_ONES": 12}


def named(table):
    """Parameters (operator, make) of all scenarios."""
    return [
        pytest.param(operator, make, id=f"{operator}-{name}")
        for operator, those in table.items()
        for name, make in those()
    ]


def as_tuple(outputs):
    return outputs if isinstance(outputs, (tuple, list)) else (outputs,)


@pytest.fixture(scope="module")
def differences(gpu):
    """Largest difference by (operator, output); printed at the end (pytest -s)."""
    found = {}
    yield found
    print(f"\nGPU: {gpu.device.model()}")
    for (operator, index), worst in sorted(found.items()):
        print(f"{operator} output {index}: {'equal bits' if worst == 0 else f'to {worst:.1e}'}")


def compare(operator, call, gpu, cpu, differences):
    for index, worst in enumerate(calls.differences(operator, call(gpu), call(cpu))):
        key = (operator, index)
        differences[key] = max(differences.get(key, 0.0), worst)


@pytest.mark.parametrize(("operator", "make"), named(scenarios.SMALL_ONES))
def test_small_scenarios_equal_the_cpu(gpu, cpu, differences, operator, make):
    compare(operator, make(), gpu, cpu, differences)


@pytest.mark.parametrize(("operator", "make"), named(scenarios.LARGE_ONES))
def test_large_scenarios_equal_the_cpu(gpu, cpu, differences, operator, make):
    compare(operator, make(), gpu, cpu, differences)


@pytest.mark.parametrize("operator", scenarios.OPERATORS)
def test_random_scenarios_equal_the_cpu(gpu, cpu, differences, operator):
    for seed in range(RANDOM_ROUNDS):
        compare(operator, scenarios.random_one(operator, seed), gpu, cpu, differences)


@pytest.mark.parametrize("operator", scenarios.OPERATORS)
@pytest.mark.parametrize("table", ["SMALL_ONES", "LARGE_ONES"])
def test_repeated_runs_give_the_same_bits(gpu, operator, table):
    """A race would show. Every launch finds the scratch memory of the one before it."""
    device = gpu.device
    for _, make in getattr(scenarios, table)[operator]():
        call = make()(gpu.prepared())
        device.wait()
        first = None
        for _ in range(REPEATS[table]):
            call.launch(device.stream)
            device.finish()
            bits = [output.tobytes() for output in call.outputs()]
            first = first or bits
            assert bits == first
        call.release()


def test_many_streams_and_threads_at_once(gpu):
    """All operators at the same time, as the workers of MXNet's engine call them."""
    device, copies = gpu.device, 3
    pairs = []
    for those in scenarios.LARGE_ONES.values():
        make = next(iter(those()))[1]
        call = make()
        alone = call(gpu)
        pairs += [(call(gpu.prepared()), as_tuple(alone)) for _ in range(copies)]
    device.wait()
    streams = [device.new_stream() for _ in pairs]
    failures = []

    def work(first):
        try:
            assert gpu.function("sniper_cuda_select")(0) == 0
            for _ in range(5):
                for (call, _), stream in list(zip(pairs, streams))[first::copies]:
                    call.launch(stream)
        except Exception as error:  # noqa: BLE001 (a thread has nowhere to raise)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(copies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    device.wait()
    assert not failures
    for call, alone in pairs:
        for got, wanted in zip(call.outputs(), alone):
            assert got.tobytes() == wanted.tobytes(), call.op
        call.release()


# ---- Golden vectors of 2018 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "anchors"),
    [("golden_multi_proposal_exact", RESNET), ("golden_multi_proposal_exact_mobilenet", MOBILENET)],
)
def test_small_golden_proposals(gpu, golden, file, anchors):
    data = np.load(golden / f"{file}.npz")
    inputs = (data[name] for name in ("cls_prob", "bbox_pred", "im_info"))
    rois, scores = calls.multi_proposal(gpu, *inputs, **anchors)
    for n, kept in enumerate(data["num_kept"]):
        rows = slice(300 * n, 300 * n + kept)
        np.testing.assert_allclose(rois[rows], data["rois"][rows], atol=1e-4)
        np.testing.assert_array_equal(scores[rows], data["score"][rows])


@pytest.mark.parametrize(
    ("inputs", "outputs", "call"),
    [
        ("", "", calls.multi_proposal_target),
        ("_padding", "_padding", calls.multi_proposal_target),
        ("", "_mask_outputs", calls.multi_proposal_target_mask),
    ],
)
def test_small_golden_targets(gpu, golden, inputs, outputs, call):
    data = np.load(golden / f"golden_multi_proposal_target{inputs}.npz")
    wanted = np.load(golden / f"golden_multi_proposal_target{outputs}.npz")
    names = ("cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges")
    results = ("rois", "label", "bbox_target", "bbox_weight", "mask_rois", "mask_ids")
    for name, output in zip(results, call(gpu, *(data[name] for name in names), **RESNET)):
        np.testing.assert_allclose(output, wanted[name], atol=1e-4, err_msg=name)


def test_small_golden_masks(gpu, golden):
    data = np.load(golden / "golden_mask_rcnn_target.npz")
    inputs = (data[name] for name in ("rois", "mask_polys", "mask_ids"))
    targets, classes = calls.mask_rcnn_target(gpu, *inputs)
    np.testing.assert_array_equal(targets, data["mask_targets"])
    np.testing.assert_array_equal(classes, data["mask_cls"])


# ---- What the glue needs besides the launchers ---------------------------------------------------


def test_small_zeros_and_error_texts(gpu):
    device = gpu.device
    address = device.allocate(1000, 256, 0xCD)
    device.wait()
    zero = gpu.function("sniper_cuda_zero")
    status = zero(ctypes.c_void_p(address), ctypes.c_size_t(999), ctypes.c_void_p(device.stream))
    device.finish()
    found = np.empty(1000, np.uint8)
    device.copy_out(address, found)
    assert status == 0
    np.testing.assert_array_equal(found, [0] * 999 + [0xCD])
    assert device.free(address)
    text = gpu.function("sniper_cuda_error_text")
    text.restype = ctypes.c_char_p
    assert b"invalid argument" in text(1)
    with pytest.raises(cuda_harness.LaunchError, match="status 1"):
        gpu.workspace_bytes("multi_scale_nms", calls.MultiScaleNmsParams(2**31, 1, 0.5, -1, 0, -1))
