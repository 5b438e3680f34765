"""A detector as ONNX graphs in one file; reading it needs neither `onnx` nor MXNet.

The same zip archive as that of `sniper.models.archive`, with `model-<k>.onnx` (`mask-<k>.onnx` for
the mask head) in place of symbols and parameters. How the graphs and our operators follow one
another stands in `meta.json` under `programs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sniper.errors import DataError
from sniper.models.archive_file import (
    DETECTOR,
    GRAPH,
    INT8,
    MASK_HEAD,
    META,
    ONNX,
    read_members,
    write_members,
)
from sniper.models.onnx.steps import NATIVE, NativeStep, OnnxStep, Program, Step

# What the executor has to hand over.
_INPUTS = {
    DETECTOR: ("data", "im_info", "im_ids", "chip_ids"),
    MASK_HEAD: ("roi_map", "mask_rois", "mask_classes"),
}


@dataclass(frozen=True)
class OnnxArchive:
    """Content of an archive.

    Attributes:
        detector: the test network.
        mask_head: see `build_mask_head`; None for networks without masks.
        meta: as that of `ModelArchive`.
    """

    detector: Program
    mask_head: Program | None
    meta: Mapping[str, Any]

    @property
    def is_int8(self) -> bool:
        """Whether the graphs compute in INT8."""
        return self.meta.get("precision") == INT8


def write_onnx_archive(path: str | Path, model: OnnxArchive) -> None:
    """Writes an archive; the old file stays until the new one is complete on disk.

    Raises:
        TrainingError: the disk is full or the folder is not writable.
    """
    contents: dict[str, bytes] = {}
    programs = {DETECTOR: _described(DETECTOR, model.detector, contents)}
    if model.mask_head is not None:
        programs[MASK_HEAD] = _described(MASK_HEAD, model.mask_head, contents)
    write_members(path, {**model.meta, "engine": ONNX, "programs": programs}, contents)


def read_onnx_archive(path: str | Path) -> OnnxArchive:
    """Reads and verifies an archive in memory.

    Raises:
        DataError: see `read_members`; or it does not say how its graphs follow one another.
    """
    path = Path(path)
    meta, contents = read_members(path)
    try:
        programs = meta["programs"]
        detector = _program(DETECTOR, programs, contents)
        mask_head = _program(MASK_HEAD, programs, contents) if MASK_HEAD in programs else None
        names = [name for name, _ in detector.outputs]
        if names != meta["outputs"]:
            raise ValueError(f"outputs {', '.join(names)} are not {meta['outputs']}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "the archive does not say how its graphs follow one another",
            where=f"programs in {META} of {path}",
            got=f"{type(error).__name__}: {error}",
            fix="export the model again",
        ) from error
    return OnnxArchive(detector, mask_head, meta)


def _described(part: str, program: Program, contents: dict[str, bytes]) -> dict[str, Any]:
    """What `meta.json` says of a program; adds its graphs to the members."""
    steps: list[dict[str, Any]] = []
    for step in program.steps:
        tensors = {"inputs": list(step.inputs), "outputs": list(step.outputs)}
        if isinstance(step, OnnxStep):
            name = GRAPH.format(part, len(contents))
            contents[name] = step.model
            steps.append({"graph": name, **tensors})
        else:
            steps.append({"operator": step.op, "attributes": dict(step.attributes), **tensors})
    outputs = [list(pair) for pair in program.outputs]
    return {"inputs": list(program.inputs), "steps": steps, "outputs": outputs}


def _program(
    part: str, programs: Mapping[str, Mapping[str, Any]], contents: Mapping[str, bytes]
) -> Program:
    described = programs[part]
    inputs = tuple(described["inputs"])
    outputs = tuple((name, tensor) for name, tensor in described["outputs"])
    steps = tuple(_step(step, contents) for step in described["steps"])
    _check_made(_INPUTS[part], inputs)
    known = set(inputs)
    for step in steps:
        _check_made(known, step.inputs)
        known.update(step.outputs)
    _check_made(known, [tensor for _, tensor in outputs])
    return Program(inputs, steps, outputs)


def _check_made(known: Collection[str], wanted: Iterable[str]) -> None:
    """Raises ValueError where a tensor is wanted before anything has made it."""
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise ValueError(f"nothing makes {', '.join(missing)} before it is needed")


def _step(described: Mapping[str, Any], contents: Mapping[str, bytes]) -> Step:
    inputs, outputs = tuple(described["inputs"]), tuple(described["outputs"])
    if "graph" in described:
        return OnnxStep(inputs, outputs, contents[described["graph"]])
    operator = described["operator"]
    if operator not in NATIVE:
        raise ValueError(f"{operator} is none of our operators, {', '.join(NATIVE)}")
    return NativeStep(inputs, outputs, operator, dict(described["attributes"]))
