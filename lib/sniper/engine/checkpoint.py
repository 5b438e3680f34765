"""Checkpoints: parameters, optimizer state and where the run stands, each written atomically.

Files of epoch E in the model folder (`<prefix>` is `--save_prefix`, SNIPER by default):
`<prefix>-symbol.json`, `<prefix>-%04d.params` (2018 layout, with the `_test` pair),
`<prefix>-%04d.states` (momentum, an `.params`-style dictionary) and `<prefix>-%04d.json`
(`RunState`, written last: its presence says that the checkpoint is complete).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path

import mxnet as mx

from sniper.errors import TrainingError
from sniper.files import atomic_write_text
from sniper.models.weights import read_params, with_test_params, write_arrays, write_params

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunState:
    """Where a run stands after an epoch.

    Attributes:
        epoch: epochs done.
        updates: optimizer updates done.
        samples: padded chips of the first epoch; the schedule is derived from it.
        batch_size: chips per update.
        seed: the run's seed; chips and batches of every epoch follow from it.
    """

    epoch: int
    updates: int
    samples: int
    batch_size: int
    seed: int


class CheckpointFolder:
    """Reads and writes the checkpoints of one run."""

    def __init__(self, folder: str | Path, prefix: str, keep: int = 0) -> None:
        """`keep` is the number of newest checkpoints to keep; 0 keeps all."""
        self.folder = Path(folder)
        self.prefix = prefix
        self.keep = keep

    def path(self, epoch: int, suffix: str) -> Path:
        """`<prefix>-0003.params` and its siblings."""
        return self.folder / f"{self.prefix}-{epoch:04d}{suffix}"

    def save(self, module: mx.mod.Module, state: RunState) -> Path:
        """Writes a checkpoint; the previous ones stay whole if the disk is full."""
        arg, aux = module.get_params()
        symbol_path = self.folder / f"{self.prefix}-symbol.json"
        atomic_write_text(symbol_path, module.symbol.tojson())
        params_path = self.path(state.epoch, ".params")
        write_params(params_path, with_test_params(arg), aux)
        write_arrays(self.path(state.epoch, ".states"), _optimizer_arrays(module))
        atomic_write_text(
            self.path(state.epoch, ".json"), json.dumps(dataclasses.asdict(state), indent=2)
        )
        self._drop_old(state.epoch)
        return params_path

    def newest(self) -> RunState | None:
        """State of the newest complete checkpoint; None where there is none."""
        pattern = re.compile(re.escape(self.prefix) + r"-(\d{4})\.json")
        epochs = [
            int(match.group(1))
            for path in self.folder.glob(f"{self.prefix}-*.json")
            if (match := pattern.fullmatch(path.name))
        ]
        for epoch in sorted(epochs, reverse=True):
            if self.path(epoch, ".params").exists() and self.path(epoch, ".states").exists():
                return self._read_state(epoch)
        return None

    def load_params(self, epoch: int) -> tuple[dict, dict]:
        """Parameters of an epoch as they were trained (without the `_test` pair)."""
        arg, aux = read_params(self.path(epoch, ".params"))
        return {name: value for name, value in arg.items() if not name.endswith("_test")}, aux

    def load_optimizer(self, module: mx.mod.Module, epoch: int) -> None:
        """Puts the optimizer state of an epoch into a module whose optimizer is initialised."""
        path = self.path(epoch, ".states")
        try:
            arrays = mx.nd.load(str(path))
        except mx.MXNetError as error:
            raise TrainingError(
                "the optimizer state cannot be read",
                where=path,
                got=str(error).splitlines()[0],
                fix="delete this checkpoint's .json file to resume from the one before",
            ) from error
        _restore_optimizer(module, arrays, path)

    def _read_state(self, epoch: int) -> RunState:
        path = self.path(epoch, ".json")
        try:
            return RunState(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise TrainingError(
                "the run state cannot be read",
                where=path,
                got=str(error),
                fix="delete this file to resume from the checkpoint before",
            ) from error

    def _drop_old(self, epoch: int) -> None:
        if self.keep <= 0:
            return
        for old in range(1, epoch - self.keep + 1):
            # The state goes first, so that a half-removed checkpoint is never resumed from.
            for suffix in (".json", ".states", ".params"):
                self.path(old, suffix).unlink(missing_ok=True)


def _updater(module: mx.mod.Module) -> tuple[mx.optimizer.Updater, list[str] | None]:
    """The updater that holds the states, and names by index where its keys are numbers."""
    if module._update_on_kvstore:
        return module._kvstore._updater, None
    return module._updater, list(module._param_names)


def _key_name(key: int | str, names: list[str] | None, devices: int) -> str:
    if isinstance(key, int) and names is not None:
        return f"{names[key // devices]}:{key % devices}"
    return f"{key}:0"


def _optimizer_arrays(module: mx.mod.Module) -> dict[str, mx.nd.NDArray]:
    """SGD momenta (and fp32 master weights) by `<part>:<parameter>:<device>`."""
    updater, names = _updater(module)
    arrays = {}
    for key, state in updater.states.items():
        name = _key_name(key, names, len(module._context))
        parts = state if isinstance(state, (tuple, list)) else (state,)
        for index, part in enumerate(parts):
            if part is not None:
                arrays[f"{index}:{name}"] = part
    return arrays


def _restore_optimizer(module: mx.mod.Module, arrays: dict, path: Path) -> None:
    updater, names = _updater(module)
    devices = len(module._context)
    weights = dict(zip(module._param_names, module._exec_group.param_arrays))
    fixed = set(module._fixed_param_names or ())
    keys: list[tuple[int | str, str, int]] = []
    for index, name in enumerate(module._param_names):
        if name in fixed:
            continue
        if names is None:
            keys.append((name, name, 0))
        else:
            keys.extend((index * devices + device, name, device) for device in range(devices))
    for key, name, device in keys:
        weight = weights[name][device]
        state = updater.optimizer.create_state_multi_precision(index=key, weight=weight)
        parts = state if isinstance(state, (tuple, list)) else (state,)
        for index, part in enumerate(parts):
            if part is None:
                continue
            saved = arrays.get(f"{index}:{name}:{device}")
            if saved is None or saved.shape != part.shape:
                raise TrainingError(
                    "the optimizer state does not fit this network",
                    where=path,
                    got=f"{name}: {None if saved is None else saved.shape}",
                    expected=f"{name}: {part.shape}",
                    fix="resume with the recipe and the devices that the run was started with",
                )
            saved.copyto(part)
        updater.states[key] = state
        updater.states_synced[key] = True
