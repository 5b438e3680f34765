"""Our operators in a detector that runs without MXNet."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sniper.errors import DataError
from sniper.models.onnx.steps import NativeStep
from sniper.native import _native

# Attributes of the graphs, as in 2018, and arguments of the functions.
_PROPOSAL_ARGUMENTS = {
    "scales": "scales",
    "ratios": "ratios",
    "feature_stride": "feature_stride",
    "rpn_pre_nms_top_n": "pre_nms_top_n",
    "rpn_post_nms_top_n": "post_nms_top_n",
    "threshold": "nms_thresh",
    "rpn_min_size": "min_size",
}
_PSROI_ARGUMENTS = (
    *("spatial_scale", "output_dim", "pooled_size", "group_size", "part_size"),
    *("sample_per_part", "trans_std"),
)


def run_native(step: NativeStep, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Outputs of an operator; all arrays are float32.

    Raises:
        DataError: an attribute or array is missing, not known or no value.
        OpsError: an array does not fit.
    """
    try:
        return _run(step, inputs)
    except TypeError as error:  # as many arrays and attributes as it has, not more, not fewer
        raise _refused(step, str(error)) from error


def _run(step: NativeStep, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    values = {name: _value(step, name) for name in step.attributes if not name.startswith("__")}
    if step.op == "MultiProposal":
        arguments = _arguments(step, values, _PROPOSAL_ARGUMENTS)
        return _native.multi_proposal(*inputs, **arguments)
    if step.op == "DeformablePSROIPooling":
        values.pop("no_trans", None)  # the number of inputs says it
        arguments = _arguments(step, values, {name: name for name in _PSROI_ARGUMENTS})
        return (_native.deformable_psroi_pooling(*inputs, **arguments),)
    arguments = _arguments(
        step, values, {"spatial_scale": "spatial_scale", "pooled_size": "pooled_size"}
    )
    return (_native.roi_max_mean_pooling(*inputs, **arguments),)


def _value(step: NativeStep, name: str) -> Any:
    """An attribute: MXNet keeps the text of a Python value."""
    try:
        return ast.literal_eval(step.attributes[name])
    except (ValueError, SyntaxError) as error:
        raise _refused(step, f"attribute {name} is {step.attributes[name]!r}") from error


def _arguments(
    step: NativeStep, values: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    strange = sorted(set(values) - set(names))
    if strange:
        raise _refused(step, f"unknown attributes {', '.join(strange)}")
    return {names[name]: value for name, value in values.items()}


def _refused(step: NativeStep, got: str) -> DataError:
    return DataError(
        "an operator of the archive cannot be run", where=step.op, got=got, fix="export again"
    )
