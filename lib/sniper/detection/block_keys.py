"""Keys of stored results: they change with everything that the results depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mxnet as mx

import sniper
from sniper.data import Dataset
from sniper.data.cache import file_sha256
from sniper.inference.detector import Detector
from sniper.inference.level import Level

# What turns weights and pixels into detections; a change in one of these makes results old.
_CODE = ("boxes.py", "chips", "data", "inference", "loader", "models", "native", "ops")


@dataclass(frozen=True)
class RunKeys:
    """Keys of the results of a run.

    Attributes:
        result: of the detections or proposals.
        levels: of what each level finds, which depends on it and the levels before it.
    """

    result: str
    levels: tuple[str, ...]


def run_keys(
    detector: Detector,
    weights: Path,
    dataset: Dataset,
    blocks: Sequence[Sequence[int]],
    *,
    pixel_means: Sequence[float],
    devices: Sequence[mx.Context],
    kind: str,
) -> RunKeys:
    """Keys of everything that a detector finds in a data set.

    Args:
        detector: its network, levels and merging.
        weights: the file that its weights come from.
        dataset: the images; a file that was written to counts as another image.
        blocks: how the images are put together in files. Results do not depend on it.
        pixel_means: subtracted from the images.
        devices: GPUs and CPUs round differently. How many there are makes no difference.
        kind: `detections`, or `proposals` and how many.
    """
    common = {
        "version": sniper.__version__,
        "mxnet": mx.__version__,
        "code": _code_sha256(),
        "weights": file_sha256(weights),
        "network": repr(replace(detector.model.spec, batch_images=1)),
        "classes": list(detector.model.class_names),
        "pixel_means": [float(mean) for mean in pixel_means],
        "devices": sorted({device.device_type for device in devices}),
        # oneDNN chooses its kernels by the number of threads; their last bits differ.
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "images": _images_sha256(dataset),
        "blocks": [list(map(int, block)) for block in blocks],
    }
    levels = [repr(replace(level, batch_images=1)) for level in detector.levels]
    # Valid ranges apply when levels are merged.
    raw = [repr(_without_range(level)) for level in detector.levels]
    return RunKeys(
        _sha256({**common, "kind": kind, "levels": levels, "merge": repr(detector.merge)}),
        tuple(_sha256({**common, "levels": raw[: k + 1]}) for k in range(len(raw))),
    )


def _without_range(level: Level) -> Level:
    return replace(level, batch_images=1, valid_range=(-1.0, -1.0))


def _images_sha256(dataset: Dataset) -> str:
    files = [
        [r.image_id, r.width, r.height, r.image_path, *_state(r.image_path)]
        for r in dataset.records
    ]
    return _sha256([dataset.name, files])


def _state(path: str) -> tuple[int, int]:
    """Size and time of a file; one that is missing is reported when it is read."""
    try:
        state = os.stat(path)
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def _code_sha256() -> str:
    digest = hashlib.sha256()
    for path in _code_files(Path(sniper.__file__).parent):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _code_files(package: Path) -> Iterable[Path]:
    for name in _CODE:
        found = [package / name] if name.endswith(".py") else (package / name).rglob("*")
        yield from sorted(path for path in found if path.suffix in (".py", ".so"))


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
