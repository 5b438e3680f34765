"""Repeats the first updates of a run and compares every batch and all weights with it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sniper.config import load_config
from sniper.data.class_names import read_classes
from sniper.errors import ConfigError, DataError
from sniper.files import atomic_write_text
from sniper.loader.train import Batch, TrainLoader
from sniper.progress import Progress
from sniper.runs.backbone_file import check_backbone
from sniper.runs.datasets import TrainingSets, read_training_sets
from sniper.runs.manifest import Manifest, Session, changes, read_manifest, trace_path
from sniper.runs.plan import TrainPlan, train_plan
from sniper.runs.train import start_loader, train_loader, training_stepper
from sniper.training.checkpoint import Checkpoint
from sniper.training.digests import WeightsDigest, digest_weights
from sniper.training.run_state import RunState, read_run_state
from sniper.training.stepper import Stepper
from sniper.training.trace import TraceLine, batch_arrays, read_trace

logger = logging.getLogger(__name__)

OnLine = Callable[[str], None]

_SHOWN_WEIGHTS = 3


@dataclass(frozen=True)
class Outcome:
    """What a repetition has found.

    Attributes:
        first_update: the update that it began with.
        updates: that were repeated.
        batches: whose arrays were compared.
        weights: updates after which the weights were compared, the start included.
        changes: what is different here from the run, told beforehand.
        difference: the first difference; None: all is the same.
        digest: of the last weights that were compared.
    """

    first_update: int
    updates: int
    batches: int
    weights: int
    changes: tuple[str, ...]
    difference: str | None
    digest: str


def reproduce(
    folder: Path,
    *,
    updates: int = 50,
    epoch: int | None = None,
    data: Path | None = None,
    overrides: Sequence[str] = (),
    on_line: OnLine = logger.info,
) -> Outcome:
    """Repeats updates of a run in a scratch folder; nothing is written anywhere else.

    Args:
        folder: of the run's checkpoints; it may have moved.
        updates: how many are repeated; fewer where the run made fewer.
        epoch: begin with the checkpoint of this epoch; None: with the start of the run.
        data: folder of the data set, where it is not where the run had it.
        overrides: KEY VALUE ... in place of what the run had.
        on_line: gets what differs beforehand, line by line.

    Raises:
        ConfigError: the run cannot be repeated in one process, or a key is wrong.
        DataError: the manifest, the checkpoint or the data are missing or damaged.
        TrainingError: a worker of the loader died, or a file could not be written.
    """
    manifest = read_manifest(folder)
    lines = read_trace(trace_path(folder))
    checkpoint = None if epoch is None else _checkpoint(folder, manifest, epoch)
    session = _session(manifest, checkpoint, folder)
    if session.workers > 1:
        raise ConfigError(
            "a run of several workers cannot be repeated by one process",
            where=folder,
            got=f"{session.workers} workers",
            fix="repeat the launch command with another output_path, and compare the checkpoints",
        )
    with tempfile.TemporaryDirectory(prefix="sniper-reproduce-") as name:
        scratch = Path(name)
        plan = _plan(session, folder, scratch, data, overrides)
        if checkpoint is None and plan.weights.pretrained is not None:
            check_backbone(plan.weights.pretrained)
        classes = read_classes(folder, plan.detector.num_classes)
        sets = read_training_sets(plan.data, classes)
        plan = replace(plan, detector=plan.detector.for_classes(sets.classes))
        told = tuple(changes(session, folder, plan, sets, checkpoint))
        for line in told:
            on_line(line)
        repetition = _Repetition(plan, sets, lines, session.parameters, manifest.run)
        return repetition.run(checkpoint, updates, told)


def _checkpoint(folder: Path, manifest: Manifest, epoch: int) -> Checkpoint:
    prefix = manifest.sessions[-1].prefix
    stem = folder / f"{prefix}-{epoch:04d}"
    path = stem.with_name(f"{stem.name}.json")
    if not path.is_file():
        present = sorted(file.stem for file in folder.glob(f"{prefix}-[0-9]*.json"))
        raise DataError(
            "the run has no checkpoint of that epoch",
            where=path,
            got=f"{', '.join(present) or 'none'} in that folder",
            fix="--from takes the number of one of them (TRAIN.KEEP_CHECKPOINTS keeps more)",
        )
    state = read_run_state(path)
    if state.run != manifest.run:
        raise DataError(
            "the checkpoint is of an earlier run in this folder",
            where=path,
            got=f"run {state.run}",
            expected=f"run {manifest.run}, whose manifest is there",
        )
    return Checkpoint(stem, state)


def _session(manifest: Manifest, checkpoint: Checkpoint | None, folder: Path) -> Session:
    """The session whose settings count at the place where the repetition begins."""
    updates = 0 if checkpoint is None else checkpoint.state.updates
    covering = [session for session in manifest.sessions if session.updates <= updates]
    if not covering:
        first = manifest.sessions[0]
        raise DataError(
            "the start of the run has no manifest: an older version made it",
            where=folder,
            got=f"the first manifest begins after update {first.updates}",
            fix=f"begin with a checkpoint: --from {first.epoch}",
        )
    return covering[-1]


def _plan(
    session: Session, folder: Path, scratch: Path, data: Path | None, overrides: Sequence[str]
) -> TrainPlan:
    """The run's own plan, but for where things are."""
    file = scratch / "run.yml"
    atomic_write_text(file, session.config)
    # Where mined proposals are.
    above = folder.resolve().parents
    places = ["output_path", str(above[min(1, len(above) - 1)])]
    if data is not None:
        places += ["dataset.dataset_path", str(data)]
    plan = train_plan(load_config(file, [*places, *overrides]))
    source = replace(plan.data.source, cache_dir=scratch / "cache")
    return replace(plan, folder=scratch, data=replace(plan.data, source=source), validation=None)


class _Repetition:
    """Trains as the run did and compares.

    Args:
        plan: of the run.
        sets: what it trains on.
        lines: the trace of the run.
        parameters: names of the weights in the digests' order.
        run: number of the run in its folder.
    """

    def __init__(
        self,
        plan: TrainPlan,
        sets: TrainingSets,
        lines: Sequence[TraceLine],
        parameters: Sequence[str],
        run: int,
    ) -> None:
        self._plan, self._sets, self._run_number = plan, sets, run
        self._parameters = list(parameters)
        self._starts = [line for line in lines if line.is_start]
        self._lines: dict[tuple[int, int], list[TraceLine]] = {}
        for line in lines:
            if not line.is_start:
                self._lines.setdefault((line.epoch, line.batch), []).append(line)
        self._last_update = max(line.update for line in lines)
        self._batches = self._weights = 0
        self._digest = ""

    def run(self, checkpoint: Checkpoint | None, updates: int, told: tuple[str, ...]) -> Outcome:
        """Repeats `updates` updates, or until something differs."""
        with train_loader(self._plan, self._sets.records) as loader:
            state = start_loader(self._plan, loader, checkpoint, self._run_number)
            _, stepper = training_stepper(self._plan, None, checkpoint, state)
            first = stepper.updates
            end = min(first + updates, self._last_update)
            if end <= first:
                raise DataError(
                    "the run made no update after that place",
                    got=f"update {first}, and the run ended with update {self._last_update}",
                    fix="begin earlier: with a smaller --from, or without it",
                )
            difference = self._first_difference(loader, stepper, state, end)
            done = stepper.updates - first
        if not self._batches and difference is None:
            raise DataError(
                "the run has kept no digest of these updates",
                got=f"updates {first + 1} to {first + done}",
                fix="begin at the start of the run, or with the checkpoint of an epoch (--from)",
            )
        return Outcome(
            *(first + 1, done, self._batches, self._weights, told, difference, self._digest)
        )

    def _first_difference(
        self, loader: TrainLoader, stepper: Stepper, state: RunState, end: int
    ) -> str | None:
        difference = self._at_start(stepper, state)
        progress = Progress("updates", end, before=stepper.updates)
        epoch = state.epoch
        while difference is None and stepper.updates < end:
            for batch in loader:
                difference = self._on(batch, epoch, stepper)
                progress.tell(stepper.updates)
                if difference is not None or stepper.updates >= end:
                    break
            else:
                epoch += 1
                if epoch >= self._plan.loop.end_epoch:
                    break
                loader.start_epoch(epoch)
        return difference

    def _at_start(self, stepper: Stepper, state: RunState) -> str | None:
        place = state.epoch, state.batch, state.updates
        for line in self._starts:
            if (line.epoch, line.batch, line.update) == place and line.weights is not None:
                self._weights += 1
                text = self._weights_text(line.weights, stepper)
                if text:
                    return f"the weights at the start, before update {state.updates + 1}: {text}"
        return None

    def _on(self, batch: Batch, epoch: int, stepper: Stepper) -> str | None:
        """Compares a batch, trains on it, compares the weights."""
        lines = self._lines.get((epoch, batch.index), [])
        where = f"update {stepper.updates + 1} (epoch {epoch + 1}, batch {batch.index + 1})"
        self._batches += bool(lines)
        for line in lines:
            text = _batch_text(line, batch)
            if text is not None:
                return f"{where}: {text}"
        result = stepper.step(batch)
        if result.bad_gradients:
            return f"{where}: gradients are not finite: {', '.join(result.bad_gradients[:3])}"
        for line in lines:
            if result.updated != line.updated:
                return (
                    f"{where}: an update was {'skipped' if result.updated else 'made'} by the run"
                )
            if line.weights is not None:
                self._weights += 1
                text = self._weights_text(line.weights, stepper)
                if text:
                    return f"{where}: the batch is the same, the weights after it are not: {text}"
        return self._at_resume(stepper) if result.updated else None

    def _at_resume(self, stepper: Stepper) -> str | None:
        """Whether a later session of the run went on with the weights that are here now."""
        for line in self._starts:
            if line.update == stepper.updates and line.weights is not None:
                self._weights += 1
                text = self._weights_text(line.weights, stepper)
                if text:
                    return f"the resume after update {line.update} (session {line.session}): {text}"
        return None

    def _weights_text(self, was: WeightsDigest, stepper: Stepper) -> str:
        weights = stepper.weights
        if list(weights) != self._parameters or len(weights) != len(was.hashes):
            return "the network has other parameters"
        now = digest_weights(weights)
        self._digest = now.total
        different = [index for index, pair in enumerate(zip(was.hashes, now.hashes))
                     if pair[0] != pair[1]]  # fmt: skip
        if not different:
            return ""
        named = "; ".join(
            f"{self._parameters[index]} (sum was {was.sums[index]:.9g}, is {now.sums[index]:.9g})"
            for index in different[:_SHOWN_WEIGHTS]
        )
        return f"{len(different)} of {len(was.hashes)} arrays differ, the first are {named}"


def _batch_text(line: TraceLine, batch: Batch) -> str | None:
    """What is different in a batch; None: nothing."""
    arrays = batch_arrays(batch)
    if list(arrays) != list(line.arrays):
        return f"the batch has arrays {', '.join(arrays)}; had {', '.join(line.arrays)}"
    for name, array in arrays.items():
        shape = line.arrays[name].shape
        if array.shape != shape:
            return (
                f"array {name} has the shape {_shape_text(array.shape)}, had {_shape_text(shape)}"
            )
        difference = line.arrays[name].difference(array)
        if difference is None:
            continue
        chips = len(batch.image_paths)
        # Labels may have several rows for a chip.
        chip = difference.row * chips // max(len(array), 1)
        image = Path(batch.image_paths[chip]).name
        return f"array {name}, chip {chip} ({image}), {difference.text()}"
    return None


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
