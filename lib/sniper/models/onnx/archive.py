"""A detector as ONNX graphs in one file; reading it needs neither `onnx` nor MXNet.

The same zip archive as that of `sniper.models.archive`, with `model-<k>.onnx` (`mask-<k>.onnx` for
the mask head) in place of symbols and parameters. How the graphs and our operators follow one
another stands in `meta.json` under `programs`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        detector = _program(programs[DETECTOR], contents)
        mask_head = _program(programs[MASK_HEAD], contents) if MASK_HEAD in programs else None
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


def _program(described: Mapping[str, Any], contents: Mapping[str, bytes]) -> Program:
    outputs = tuple((name, tensor) for name, tensor in described["outputs"])
    steps = tuple(_step(step, contents) for step in described["steps"])
    known = set(described["inputs"]).union(*(step.outputs for step in steps))
    wanted = {tensor for _, tensor in outputs}.union(*(step.inputs for step in steps))
    if wanted - known:
        raise ValueError(f"nothing makes {', '.join(sorted(wanted - known))}")
    return Program(tuple(described["inputs"]), steps, outputs)


def _step(described: Mapping[str, Any], contents: Mapping[str, bytes]) -> Step:
    inputs, outputs = tuple(described["inputs"]), tuple(described["outputs"])
    if "graph" in described:
        return OnnxStep(inputs, outputs, contents[described["graph"]])
    operator = described["operator"]
    if operator not in NATIVE:
        raise ValueError(f"{operator} is none of our operators, {', '.join(NATIVE)}")
    return NativeStep(inputs, outputs, operator, dict(described["attributes"]))
