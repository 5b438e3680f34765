"""Every operator front under random input: a well-formed result or one error, never a crash."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sniper import ops
from sniper.errors import OpsError
from tests.ops import operator_cases

HERE = Path(__file__).resolve()
EXAMPLES = int(os.environ.get("SNIPER_FUZZ_EXAMPLES", "15"))
LARGE = {
    "images": 2, "height": 5, "width": 6, "scales": 3, "ratios": 2, "post": 30, "rows": 5,
    "masks": 4, "poison": 0.02,
}  # fmt: skip

SIZES = st.fixed_dictionaries(
    {
        "images": st.integers(1, 3),
        "height": st.integers(1, 5),
        "width": st.integers(1, 5),
        "scales": st.integers(1, 3),
        "ratios": st.integers(1, 2),
        "post": st.integers(1, 40),
        "rows": st.integers(1, 6),
        "masks": st.integers(1, 6),
        "poison": st.sampled_from([0, 0, 0.05, 0.5]),
    }
)
FUZZING = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
WRONG_VALUES = [
    None, "3", "", "(1, 2)", [], (), {}, float("nan"), float("inf"), -1, 0, 0.5, 3.0, True, 1e30,
    1e300, 10**400, -(10**30), 2**31, 2**64, 10**7, 1j, np.float32(2.5), np.int64(4), [None],
    (float("nan"),), (1e-30,), "True", object(), lambda: None,
]  # fmt: skip

# Texts that a symbol file may hold, and every operator's number of inputs and attributes.
TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "(", "()", "[1,", "(1, 2)", "[0.5]", "(1,,2)", "1e999", "nan", "-inf", "None",
         "True", "0x10", "1_000", "-1", "0", "3.0", "2.5", "99999999999999999999", "1" * 400]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
)  # fmt: skip
PROPOSAL = ["scales", "ratios", "feature_stride", "threshold", "rpn_min_size", "batch_size",
            "rpn_pre_nms_top_n", "rpn_post_nms_top_n", "colour"]  # fmt: skip
LEGACY = ["legacy_gt_centre", "legacy_areas", "legacy_min_size", "label_mode", "super_of"]
RAW_ATTRIBUTES = {
    "MultiProposal": (3, PROPOSAL),
    "MultiProposalTarget": (5, [*PROPOSAL, *LEGACY]),
    "MultiProposalTargetMask": (5, [*PROPOSAL, *LEGACY, "max_masks", "max_gts", "legacy_cap"]),
    "AnchorMiningTarget": (
        3,
        [
            "scales",
            "ratios",
            "feature_stride",
            "base_size",
            "border",
            "batch_size",
            "fg_fraction",
            "positive_overlap",
            "negative_overlap",
            "ignore_overlap",
            "with_ignore",
            "colour",
        ],
    ),
    "MaskRcnnTarget": (3, ["mask_size", "ignore_label", "num_classes"]),
    "ChipGenerator": (1, ["width", "height", "factor", "stride", "seed", "max_chips"]),
    "MultiScaleNMS": (5, ["sigma", "nms_threshold", "min_score", "max_per_image"]),
    "DeformablePSROIPooling": (
        3,
        ["spatial_scale", "output_dim", "pooled_size", "group_size", "part_size", "trans_std"],
    ),
    "DeformableConvolution": (
        4,
        ["num_filter", "kernel", "stride", "pad", "dilate", "num_group", "num_deformable_group"],
    ),
    "DeformableColumns": (2, ["kernel", "stride", "pad", "dilate", "layout", "colour"]),
    "WinogradConvolution": (
        3,
        ["num_filter", "kernel", "stride", "pad", "dilate", "relu", "colour"],
    ),
    "ROIMaxMeanPooling": (2, ["spatial_scale", "pooled_size", "colour"]),
    "ReLU6": (1, ["a_min", "a_max", "colour"]),
}


def values(outputs):
    return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else [outputs])]


def wrong_tensor(tensor, rng):
    """An NDArray (or not) that a caller may pass by mistake."""
    shape = tensor.shape
    choices = [
        lambda: tensor.astype(str(rng.choice(["float16", "float64", "int32", "uint8", "int64"]))),
        lambda: tensor.expand_dims(0),
        lambda: tensor.reshape((-1,)),
        lambda: tensor.slice_axis(-1, 0, max(1, shape[-1] - 1)),
        lambda: mx.nd.concat(tensor, tensor, dim=int(rng.integers(len(shape)))),
        lambda: mx.nd.zeros((1,)),
        lambda: tensor.T,
        lambda: tensor[:1],
        lambda: mx.np.zeros(shape),
        lambda: tensor.tostype("row_sparse"),
        lambda: mx.sym.Variable("x"),
        lambda: tensor.asnumpy(),
        lambda: tensor.asnumpy().tolist(),
        lambda: None,
        lambda: 3.0,
    ]
    return choices[int(rng.integers(len(choices)))]()


@pytest.mark.parametrize("name", operator_cases.CASES)
@FUZZING
@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
def test_right_types_give_a_well_formed_result(name, sizes, seed):
    call = operator_cases.CASES[name](sizes, np.random.default_rng(seed))
    tensors = [mx.nd.array(array) for array in call.arrays.values()]
    outputs = values(call.front(*tensors, **call.attributes))
    assert [output.shape for output in outputs] == call.shapes
    assert all(np.isfinite(output).all() for output in outputs)
    if call.host is not None:
        for output, expected in zip(outputs, call.host()):
            np.testing.assert_array_equal(output, expected)
    for output, again in zip(outputs, values(call.front(*tensors, **call.attributes))):
        np.testing.assert_array_equal(output, again)


@pytest.mark.parametrize("name", operator_cases.CASES)
@FUZZING
@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
def test_wrong_arguments_give_a_result_or_one_error(name, sizes, seed):
    rng = np.random.default_rng(seed)
    call = operator_cases.CASES[name](sizes, rng)
    arguments = {key: mx.nd.array(array) for key, array in call.arrays.items()}
    arguments.update(call.attributes)
    for key in rng.choice(list(arguments), int(rng.integers(1, 3))):
        if key in call.arrays and rng.random() < 0.9:
            arguments[key] = wrong_tensor(mx.nd.array(call.arrays[key]), rng)
        else:
            arguments[key] = WRONG_VALUES[int(rng.integers(len(WRONG_VALUES)))]
    try:
        outputs = call.front(**arguments)
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        if isinstance(first, mx.nd.NDArray):  # a Symbol as the only tensor builds a graph
            values(outputs)
    except OpsError as error:
        assert name in str(error) and 10 < len(str(error)) < 600
    except mx.base.MXNetError as error:  # from the checks of the operator itself
        assert ": " in str(error) and len(str(error)) < 600


@pytest.mark.parametrize("operator", RAW_ATTRIBUTES)
@FUZZING
@given(data=st.data())
def test_attributes_of_a_symbol_file_give_an_operator_or_one_error(operator, data):
    """A JSON file may hold any text; each refusal is one sentence that names the operator."""
    inputs, names = RAW_ATTRIBUTES[operator]
    attributes = data.draw(st.dictionaries(st.sampled_from(names), TEXTS, max_size=3))
    ops.load_library()
    variables = [mx.sym.Variable(f"x{i}", shape=(2, 2)) for i in range(inputs)]
    try:
        getattr(mx.sym, operator)(*variables, **attributes).infer_shape()
    except mx.base.MXNetError as error:
        assert f"{operator}: " in str(error) or "Error in operator" in str(error)


@pytest.mark.parametrize("name", operator_cases.CASES)
def test_threads_and_callers_do_not_change_the_result(name):
    call = operator_cases.CASES[name](LARGE, np.random.default_rng(1))
    tensors = [mx.nd.array(array) for array in call.arrays.values()]
    expected = values(call.front(*tensors, **call.attributes))
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            omp.omp_set_num_threads(threads)
            results.append(values(call.front(*tensors, **call.attributes)))
    finally:
        omp.omp_set_num_threads(before)

    def repeat():
        own = [mx.nd.array(array) for array in call.arrays.values()]
        results.extend(values(call.front(*own, **call.attributes)) for _ in range(5))

    callers = [threading.Thread(target=repeat) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(results) == 18
    for result in results:
        for output, wanted in zip(result, expected):
            np.testing.assert_array_equal(output, wanted)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_many_examples_in_a_child_process():
    """A crash would end the child only; its output names the failing example."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE)],
        env={**os.environ, "SNIPER_FUZZ_EXAMPLES": "500"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
