"""The manifest of a run: what its numbers depend on, for `sniper reproduce`.

`<model folder>/reproduce/` holds

* `manifest.json`: of each session (the start of the run, and each resume) the place it began at,
  its configuration, environment, code, classes, and digests of what it read;
* `images-1.tsv.gz`, ...: the training images of the sessions (`sniper.runs.data_identity`);
* `digests.jsonl`: digests of batches and weights (`sniper.training.trace`).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, get_args, get_origin, get_type_hints

import yaml

from sniper.data.cache import file_sha256
from sniper.errors import DataError
from sniper.files import atomic_write_text
from sniper.runs.data_identity import (
    identify_images,
    identity_of,
    image_changes,
    read_images,
    write_images,
)
from sniper.runs.datasets import TrainingSets, proposal_file
from sniper.runs.environment import THREADS, code_files, environment
from sniper.runs.plan import TrainPlan
from sniper.training.checkpoint import Checkpoint
from sniper.training.run_state import RunState

logger = logging.getLogger(__name__)

FORMAT = 1
_FOLDER, _MANIFEST, _TRACE = "reproduce", "manifest.json", "digests.jsonl"
_SHOWN = 5
_SHOWN_CLASSES = 20

# Where things are, and not what they are.
PLACES = ("output_path", "proposal_path", "dataset.root_path", "dataset.dataset_path", "name")


@dataclass(frozen=True)
class Session:
    """One part of a run without a break.

    Attributes:
        session: its number, from 1.
        epoch, batch, updates: the place where it began.
        checkpoint: stem of the checkpoint that it went on from; None: the beginning.
        prefix: stem of the checkpoints, `--save_prefix`.
        seed: of every random stream.
        batch_size: chips of a batch, all devices and workers together.
        workers: processes that trained together.
        config: the resolved configuration, yaml.
        environment: see `sniper.runs.environment.environment`.
        code: path below the package -> hash.
        classes: names, the background in front.
        files: what was read besides images, by name -> SHA-256: annotation files, proposals,
            pretrained weights, the checkpoint.
        images: file with the training images.
        images_sha256: of all of them.
        parameters: names of the weights, in the order of their digests.
    """

    session: int
    epoch: int
    batch: int
    updates: int
    checkpoint: Optional[str]  # evaluated by `_session`, on Python 3.9 too
    prefix: str
    seed: int
    batch_size: int
    workers: int
    config: str
    environment: dict[str, str]
    code: dict[str, str]
    classes: list[str]
    files: dict[str, str]
    images: str
    images_sha256: str
    parameters: list[str]


@dataclass(frozen=True)
class Manifest:
    """All sessions of a run; `run` is its number in its folder."""

    run: int
    sessions: tuple[Session, ...]


def trace_path(folder: Path) -> Path:
    """Where the digests of a run are."""
    return folder / _FOLDER / _TRACE


def begin_session(
    plan: TrainPlan,
    sets: TrainingSets,
    state: RunState,
    checkpoint: Checkpoint | None,
    parameters: Sequence[str],
    *,
    prefix: str,
    workers: int,
) -> int:
    """Adds a session to the manifest of a run; returns its number.

    A run that begins anew in its folder replaces the manifest of the one before.

    Args:
        plan: of the run.
        sets: what it trains on.
        state: where it begins or goes on.
        checkpoint: what it goes on from.
        parameters: names of the weights.
        prefix: stem of its checkpoints.
        workers: processes that train together.

    Raises:
        TrainingError: a file could not be written.
    """
    folder = plan.folder / _FOLDER
    earlier = () if checkpoint is None else _earlier_sessions(plan.folder, state.run)
    if not earlier:
        shutil.rmtree(folder, ignore_errors=True)
    images = identify_images(sets.records, plan.data.source.path)
    digest = identity_of(images)
    number = len(earlier) + 1
    same = [session.images for session in earlier if session.images_sha256 == digest]
    name = same[0] if same else f"images-{number}.tsv.gz"
    if not same:
        write_images(folder / name, images)
    session = Session(
        number,
        *(state.epoch, state.batch, state.updates),
        None if checkpoint is None else checkpoint.stem.name,
        prefix,
        *(state.seed, state.batch_size, workers),
        plan.config,
        environment(plan.devices),
        code_files(),
        list(sets.classes.names),
        files_read(plan, sets, checkpoint),
        name,
        digest,
        list(parameters),
    )
    content = {
        "format": FORMAT,
        "run": state.run,
        "sessions": [asdict(part) for part in (*earlier, session)],
    }
    atomic_write_text(folder / _MANIFEST, json.dumps(content, indent=1, ensure_ascii=False))
    return number


def _earlier_sessions(folder: Path, run: int) -> tuple[Session, ...]:
    """Those of the run that goes on; none where an older version began it."""
    if not (folder / _FOLDER / _MANIFEST).exists():
        return ()
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        # It is no reason not to train on.
        logger.warning("the manifest for `sniper reproduce` begins anew here: %s", error)
        return ()
    return manifest.sessions if manifest.run == run else ()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run.

    Args:
        folder: of its checkpoints.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / _FOLDER / _MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sessions = tuple(_session(session) for session in values["sessions"])
        if values["format"] != FORMAT or not sessions:
            raise ValueError(f"format {values['format']} with {len(sessions)} sessions")
        if type(values["run"]) is not int:
            raise TypeError(f"run is {values['run']!r}, expected int")
        return Manifest(values["run"], sessions)
    except FileNotFoundError:
        raise DataError(
            "this is no run with a manifest",
            where=path,
            expected="the folder of a run's checkpoints: <output_path>/<recipe>/<training sets>",
            fix="name that folder; runs of older versions have no manifest",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            "the manifest of a run cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected=f"format {FORMAT}, as training writes it",
        ) from error


def _session(values: Mapping[str, Any]) -> Session:
    """A session as JSON has it.

    Raises:
        TypeError: a value is missing, unknown, or of another kind.
    """
    session = Session(**values)
    for name, kind in get_type_hints(Session).items():
        value = getattr(session, name)
        # A kind such as dict[str, str] has its container and what is in it.
        inner = [part for part in get_args(kind) if part is not type(None)]
        container = get_origin(kind)
        if container in (dict, list):
            items = [*value, *value.values()] if isinstance(value, dict) else value
            is_right = type(value) is container and all(type(item) is inner[0] for item in items)
        else:
            is_right = type(value) in (get_args(kind) or (kind,))
        if not is_right:
            raise TypeError(f"{name} of a session is {value!r:.60}, expected {kind}")
    return session


def files_read(
    plan: TrainPlan, sets: TrainingSets, checkpoint: Checkpoint | None
) -> dict[str, str]:
    """SHA-256 of the files that a run reads besides images, by what they are."""
    files = {f"annotations {path.name}": path for path in sets.annotations}
    if plan.data.with_negatives:
        for name in sets.names:
            files[f"proposals {name}"] = proposal_file(plan.data.proposal_dir, name)
    if checkpoint is not None:
        for suffix in (".params", ".states"):
            files[f"checkpoint {checkpoint.path(suffix).name}"] = checkpoint.path(suffix)
    elif plan.weights.pretrained is not None:
        files[f"pretrained weights {plan.weights.pretrained.name}"] = plan.weights.pretrained
    # Proposals of 2018 have other names.
    return {name: file_sha256(path) for name, path in files.items() if path.is_file()}


def changes(
    was: Session, folder: Path, plan: TrainPlan, sets: TrainingSets, checkpoint: Checkpoint | None
) -> Iterator[str]:
    """What is different here and now from what a session had: a sentence each.

    Args:
        was: the session.
        folder: of its run.
        plan: of the repetition.
        sets: what it trains on.
        checkpoint: what it starts with.
    """
    yield from _changed(was.environment, environment(plan.devices))
    yield from _changed_code(was.code, code_files())
    yield from config_changes(was.config, plan.config)
    if was.classes != list(sets.classes.names):
        yield f"classes: were {_listing(was.classes[1:])}; are {_listing(sets.classes.names[1:])}"
    files = files_read(plan, sets, checkpoint)
    for name in (*was.files, *(set(files) - set(was.files))):
        # A repetition may begin elsewhere than the session did.
        if not name.startswith("checkpoint") and was.files.get(name) != files.get(name):
            yield f"{name}: {_fate(name, was.files, files)}"
    now = identify_images(sets.records, plan.data.source.path)
    yield from image_changes(read_images(folder / _FOLDER / was.images), now)


def config_changes(was: str, now: str) -> Iterator[str]:
    """Keys with different values, places left out."""
    before, after = (_flat(yaml.safe_load(text)) for text in (was, now))
    names = [name for name in {**before, **after} if name not in PLACES]
    for name in names:
        if before.get(name) != after.get(name):
            yield f"key {name}: was {before.get(name)}, is {after.get(name)}"


def _changed(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in {**was, **now}:
        if was.get(name) != now.get(name):
            hint = ""
            if name == "threads" and was.get(name):
                hint = f" ({THREADS}={was[name]} before the command)"
            yield f"{name}: was {was.get(name) or 'not set'}, is {now.get(name) or 'not set'}{hint}"


def _changed_code(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    names = sorted(name for name in {**was, **now} if was.get(name) != now.get(name))
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        listing = ", ".join(f"{name} ({_fate(name, was, now)})" for name in names[:_SHOWN])
        yield f"code, {len(names)} file(s): {listing}{more}"


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    return ", ".join(names[:_SHOWN_CLASSES]) + more


def _fate(name: str, was: Mapping[str, str], now: Mapping[str, str]) -> str:
    if name not in was:
        return "new"
    return "changed" if name in now else "missing"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values.update(_flat(value, f"{prefix}{name}."))
        else:
            values[f"{prefix}{name}"] = value
    return values
