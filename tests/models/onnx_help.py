"""Runs converted networks with ONNX Runtime, and makes weights for them."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import onnxruntime

from sniper.models.assembly import DetectorSpec, ProposalSettings
from sniper.models.networks import ends_residual
from sniper.models.onnx.program import OnnxStep

CLASSES = 4


def spec_of(symbol, **values):
    """A narrow network with all its heads."""
    faces = symbol.endswith("_ssh")
    base = {
        "num_classes": 2 if faces else CLASSES,
        "anchor_scales": (1, 2, 4, 8, 16, 32) if faces else (1, 2),
        "anchor_ratios": (1,) if faces else (0.5, 1, 2),
        "feature_stride": 32 if symbol.startswith("mobilenetv2") and not faces else 16,
        "batch_images": 1,
        "width": 0.1,
        "rpn_channels": 16,
        "roi_channels": 16,
        "fc_channels": 32,
        "proposal": ProposalSettings(-1, 0.7, 3, 12),
        "auto_focus": "_e2e" in symbol or faces,
        "with_masks": symbol.endswith("_mask"),
        "mask_size": 8,
    }
    return DetectorSpec(symbol, **{**base, **values})


def any_params(graph, shapes, rng):
    """Parameters and statistics for which maps keep their size: name -> array."""
    arguments, _, statistics = graph.infer_shape(**shapes)
    every = [
        *zip(graph.list_arguments(), arguments),
        *zip(graph.list_auxiliary_states(), statistics),
    ]
    params = {}
    for name, shape in every:
        if name in shapes:
            continue
        if name.endswith(("_var", "_gamma")):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = rng.normal(0, 0.1, shape)
        else:
            values = rng.normal(0, np.sqrt(1.5 / np.prod(shape[1:])), shape)
            # Otherwise a hundred layers add up to values of hundreds.
            values *= 0.2 if ends_residual(name) else 1
        params[name] = values.astype(np.float32)
    return params


def run_program(program, inputs, known=None):
    """Outputs by name.

    Args:
        program: the network.
        inputs: by name.
        known: tensors that are taken as they are, not computed.
    """
    known = known or {}
    tensors = dict(inputs)
    for step in program.steps:
        values = [tensors[name] for name in step.inputs]
        outputs = _run_onnx(step, values) if isinstance(step, OnnxStep) else _run_ours(step, values)
        tensors.update(zip(step.outputs, outputs))
        tensors.update(known)
    return {name: tensors[tensor] for name, tensor in program.outputs}


def _run_onnx(step, values):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(step.model, options, providers=["CPUExecutionProvider"])
    return session.run(list(step.outputs), dict(zip(step.inputs, values)))


def _run_ours(step, values):
    outputs = getattr(mx.nd, step.op)(*map(mx.nd.array, values), **step.attributes)
    return [array.asnumpy() for array in (outputs if isinstance(outputs, list) else [outputs])]
