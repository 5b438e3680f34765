"""How much memory training and testing will need, told from the configuration's graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from easydict import EasyDict

from sniper.data import Record, image_record
from sniper.errors import ConfigError
from sniper.inference.level import Level
from sniper.inference.mask_batches import MOST_MASKS
from sniper.loader.windows import SIDE_MULTIPLE
from sniper.models.assembly import (
    DetectorSpec,
    build_detector,
    build_mask_head,
    inference_input_shapes,
    train_input_shapes,
)
from sniper.models.graph_memory import GraphMemory, Shape, graph_memory, sized_graph
from sniper.models.lazy import mx
from sniper.models.weights import fixed_names
from sniper.models.workspace import Workspace, workspace
from sniper.runs.levels import levels_of, mode_in_force
from sniper.runs.resolve import detector_spec, training_load

# MXNet leaves so much of a GPU free (MXNET_GPU_MEM_POOL_RESERVE); CUDA and its libraries take this
# themselves, which nobody has measured here.
_GPU_SHARE, _CUDA_CONTEXT = 0.95, 500_000_000
# Python, MXNet and oneDNN's kernels on a CPU, 0.3 GB as `sniper plan-memory --measure` found, and a
# little for the loader and the data set.
PROCESS_BYTES = 350_000_000
_MOST_BATCH, _PROBE = 4096, 15

Size = tuple[int, int]


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a device at the peak of a run, in bytes.

    Attributes:
        what: what is run, in words.
        items: name -> bytes, in the order of a table.
        at_once: of the activations, most that live at one time.
        peak_layer: where that is.
        largest: layers that hold most of it then, and their bytes.
        on_gpu: on a GPU and not in the memory of the process.
    """

    what: str
    items: dict[str, int]
    at_once: int
    peak_layer: str
    largest: tuple[tuple[str, int], ...]
    on_gpu: bool

    @property
    def total(self) -> int:
        """Bytes of all items, without those of a process that has computed nothing yet."""
        return sum(self.items.values())

    @property
    def around(self) -> int:
        """Bytes beside it: of the process on a CPU, of CUDA on a GPU."""
        return _CUDA_CONTEXT if self.on_gpu else PROCESS_BYTES

    def fits(self, device_bytes: float) -> bool:
        """Whether a device with so much memory can do it."""
        usable = device_bytes * (_GPU_SHARE if self.on_gpu else 1.0)
        return self.total + self.around <= usable


def training_memory(
    cfg: EasyDict, *, batch_images: int | None = None, chip_size: int | None = None
) -> MemoryPlan:
    """Memory of a device that trains.

    Args:
        cfg: a checked configuration; its GPUs need not be there.
        batch_images: chips of a device in a batch; None takes `TRAIN.BATCH_IMAGES`.
        chip_size: side of a chip, px; None takes `TRAIN.CHIP_SIZE`.

    Raises:
        ConfigError: the network cannot be built so.
    """
    load, on_gpu = training_load(cfg), asks_for_gpu(cfg)
    batch, side = batch_images or load.batch_images, chip_size or load.chip_size
    spec = detector_spec(cfg, train=True, batch_images=batch, fp16=on_gpu and load.fp16)
    symbol = build_detector(spec, train=True, rpn_only=load.rpn_only)
    shapes = train_input_shapes(spec, side, rpn_only=load.rpn_only)
    fixed = set(fixed_names(symbol, load.fixed))
    memory, borrowed = _memory_of(symbol, shapes, fixed, train=True, on_gpu=on_gpu)
    sums = load.sums_gradients or len(_entries(cfg)) > 1
    items = {
        "weights": memory.parameters + memory.statistics,
        "gradients": memory.gradients + (4 * memory.trained_values if sums else 0),
        "optimizer": memory.optimizer,
        **({"averaged weights": 4 * memory.trained_values} if load.averages else {}),
        # On a CPU the loader's next batch waits in the same memory.
        "batch": memory.inputs * (1 if on_gpu else 2),
        "activations": memory.activations,
        "workspace": borrowed.total,
    }
    what = f"training, {batch} chip(s) of {side} px"
    return MemoryPlan(what, items, memory.at_once, memory.peak_layer, memory.largest, on_gpu)


def testing_memory(
    cfg: EasyDict, image: Size, *, batch_images: int | None = None, mode: str | None = None
) -> MemoryPlan:
    """Memory of a device that detects on images of one size.

    Decoded images that wait (at most 256 MB of them) and the RoI maps of networks with masks (at
    most 1 GB) come from the number of images, and are not in it.

    Args:
        cfg: a checked configuration; its GPUs need not be there.
        image: width and height, px.
        batch_images: windows of a device in one pass; None takes `TEST.BATCH_IMAGES`. A CPU sees
            them one by one.
        mode: see `TEST.MODE`, which None takes.

    Raises:
        ConfigError: the network cannot do what is asked for.
    """
    on_gpu = asks_for_gpu(cfg)
    fp16 = on_gpu and training_load(cfg).fp16
    spec = detector_spec(cfg, train=False, batch_images=1, fp16=fp16)
    levels = levels_of(cfg, mode_in_force(cfg, mode), batch_images)
    record = image_record("", 0, *image)
    plans = [_level_memory(spec, level, record, on_gpu=on_gpu) for level in levels]
    memory, _ = max(plans, key=lambda plan: plan[0].activations)
    sides = [_tensor_sides(level, record) for level in levels]
    # On a CPU the model keeps its weights where they were read, and oneDNN a copy in its own layout
    # for every shape that is kept.
    copies = 1 if on_gpu else 2 + _shapes_kept(sides)
    items = {
        "weights": copies * (memory.parameters + memory.statistics),
        "batch": max(plan.inputs for plan, _ in plans) * (1 if on_gpu else 2),
        "activations": memory.activations,
        "workspace": max(borrowed.layers for _, borrowed in plans)
        + max(borrowed.columns for _, borrowed in plans),
    }
    if spec.with_masks:
        network_px = max(height * width for height, width in sides)
        of_masks, borrowed = _mask_memory(spec, network_px, on_gpu=on_gpu)
        items["weights"] += copies * of_masks.parameters
        items["mask head"] = of_masks.activations + of_masks.inputs + borrowed.total
    shown = ", ".join(f"{width}x{height}" for height, width in sides)
    what = f"testing, image of {image[0]}x{image[1]} px, {len(levels)} level(s): {shown}"
    return MemoryPlan(what, items, memory.at_once, memory.peak_layer, memory.largest, on_gpu)


def largest_batch(plan_of: Callable[[int], MemoryPlan], device_bytes: float) -> int:
    """The largest batch whose plan fits into a device; 0 where not even one chip or image does.

    Args:
        plan_of: the plan of a batch size.
        device_bytes: memory of the device.
    """
    first = plan_of(1)
    if not first.fits(device_bytes):
        return 0
    # Most parts grow evenly: a guess, and then steps that double away from it.
    slope = max(1.0, (plan_of(1 + _PROBE).total - first.total) / _PROBE)
    room = device_bytes * (_GPU_SHARE if first.on_gpu else 1.0) - first.total - first.around
    guess = min(_MOST_BATCH, 1 + int(room / slope))
    fits, too_large = 1, _MOST_BATCH + 1
    probe, step = guess, 1
    while too_large - fits > 1:
        if not fits < probe < too_large:
            probe = (fits + too_large) // 2
        if plan_of(probe).fits(device_bytes):
            fits, probe = probe, probe + step
        else:
            too_large, probe = probe, probe - step
        step *= 2
    return fits


def asks_for_gpu(cfg: EasyDict) -> bool:
    """Whether the configuration names GPUs, which need not be there."""
    return set(_entries(cfg)) != {"cpu"}


def _entries(cfg: EasyDict) -> Sequence[str]:
    return [entry.strip() for entry in str(cfg.gpus).split(",") if entry.strip()] or ["cpu"]


def _memory_of(
    symbol: mx.sym.Symbol,
    shapes: dict[str, Shape],
    fixed: set[str],
    *,
    train: bool,
    on_gpu: bool,
) -> tuple[GraphMemory, Workspace]:
    graph = sized_graph(symbol, shapes)
    names = symbol.list_arguments() if train else []
    trained = [name for name in names if name not in shapes and name not in fixed]
    memory = graph_memory(graph, shapes, symbol.list_auxiliary_states(), trained)
    return memory, workspace(graph, train=train, on_gpu=on_gpu)


def _tensor_sides(level: Level, record: Record) -> tuple[int, int]:
    """Height and width of the largest window of a level, network px."""
    factor = level.factor(record)
    width, height = level.most_sides(record)
    sides = [max(1, round(side * factor)) for side in (height, width)]
    if min(width, height) * factor < 0.5:
        raise ConfigError(
            "the image is too thin to be looked at",
            got=f"{record.width}x{record.height} px, scaled by {factor:.4g}",
        )
    high, wide = (-(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE for side in sides)
    return high, wide


def _shapes_kept(sides: Sequence[Size]) -> int:
    """Shapes whose executors stay: a larger one ends those of all before it."""
    kept: set[Size] = set()
    most = 0
    for height, width in sides:
        if height * width > most:
            most = height * width
            kept.clear()
        kept.add((height, width))
    return len(kept)


def _level_memory(
    spec: DetectorSpec, level: Level, record: Record, *, on_gpu: bool
) -> tuple[GraphMemory, Workspace]:
    symbol = build_detector(spec, train=False, roi_map=spec.with_masks)
    batch = level.batch_images if on_gpu else 1
    shapes = inference_input_shapes(spec, batch, *_tensor_sides(level, record))
    return _memory_of(symbol, shapes, set(), train=False, on_gpu=on_gpu)


def _mask_memory(
    spec: DetectorSpec, network_px: int, *, on_gpu: bool
) -> tuple[GraphMemory, Workspace]:
    cells = max(1, network_px // spec.feature_stride**2)
    shapes: dict[str, Shape] = {
        "roi_map": (1, spec.roi_channels, 1, cells),
        "mask_rois": (MOST_MASKS, 5),
        "mask_classes": (MOST_MASKS,),
    }
    return _memory_of(build_mask_head(spec), shapes, set(), train=False, on_gpu=on_gpu)
