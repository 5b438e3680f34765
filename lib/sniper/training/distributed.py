"""The training processes ("workers") of one run, on one machine or on several.

Each worker trains its share of every batch (`TrainLoader(shard=...)`), sums the gradients with the
others through MXNet's parameter server, and makes the same update. `sniper launch` starts them.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sniper.errors import ConfigError, SniperError, TrainingError
from sniper.training.heartbeat import Heartbeat

# The rank must be known before the loader forks, and MXNet starts threads: it is imported late.
if TYPE_CHECKING:
    import mxnet as mx

    from sniper.training.collectives import RowGather, WorkerSum

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

ROLE_VARIABLE = "DMLC_ROLE"
COUNT_VARIABLE = "DMLC_NUM_WORKER"
RANK_VARIABLE = "SNIPER_WORKER_RANK"
TIMEOUT_VARIABLE = "SNIPER_LAUNCH_TIMEOUT"
DEFAULT_TIMEOUT_S = 1800.0
_PATIENCE_S = 30.0
_DIGEST_BYTES = 16


class Workers:
    """This process among the workers of a run; alone unless `sniper launch` started it.

    Usage::

        with Workers(cfg.default.kvstore) as workers:
            loader = TrainLoader(..., shard=(workers.rank, workers.count))   # forks
            workers.connect()                                                # starts threads
            ...

    All methods that say "collective" must be called by all workers in the same order; a worker that
    is alone returns from them at once.

    Args:
        kind: `default.kvstore`. The dist kinds belong together with `sniper launch`.

    Raises:
        ConfigError: a dist kind without the launcher, or the launcher without a dist kind.
    """

    def __init__(self, kind: str) -> None:
        launched = _is_launched()
        _check_kind(kind, launched)
        self.rank = int(os.environ[RANK_VARIABLE]) if launched else 0
        self.count = launched_workers()
        # The launcher shall be first: it knows who stands still.
        self.timeout_s = float(os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_S)) + _PATIENCE_S
        self.kvstore: mx.kv.KVStore | None = None
        self._launched = launched
        self._heartbeat = Heartbeat()
        self._gather: RowGather | None = None
        self._means: dict[tuple[str, ...], WorkerSum] = {}
        self._exit_code: int | None = None

    @property
    def is_writer(self) -> bool:
        """Whether this worker writes checkpoints and logs, and validates."""
        return self.rank == 0

    def connect(self) -> None:
        """Joins the other workers; call it once, after the loader has forked its processes.

        Raises:
            TrainingError: the others did not come in time.
        """
        if not self._launched:
            return
        import mxnet as mx

        from sniper.training.collectives import RowGather

        # A local job's sockets are files, which only their owner shall use.
        usual = os.umask(0o077)
        try:
            self.kvstore = self._in_time(
                lambda: mx.kv.create("dist_sync"), "to join the other workers"
            )
        finally:
            os.umask(usual)
        # From here on an ordinary exit waits for all others, for ever if they wait for this one.
        atexit.register(self._leave_alone)
        self._exit_code = 1
        self._gather = RowGather(self.kvstore, self.rank, self.count)
        logger.info("worker %d of %d is connected", self.rank, self.count)

    def beat(self) -> None:
        """Tells the launcher that this worker gets on; call it after every update."""
        self._heartbeat.beat()

    def long_task(self, limit_s: float = 4 * 3600) -> AbstractContextManager[None]:
        """While this runs the launcher does not miss updates: for validation and the like."""
        return self._heartbeat.long_task(limit_s)

    def barrier(self, what: str = "the others", limit_s: float | None = None) -> None:
        """Waits until all workers are here; collective.

        Args:
            what: is waited for, for the message.
            limit_s: longest wait; None: a little more than the launcher's `--timeout`.

        Raises:
            TrainingError: it took too long.
        """
        kvstore = self.kvstore
        if kvstore is not None:
            self._in_time(kvstore._barrier, f"for {what}", limit_s)

    def gather(self, row: np.ndarray) -> np.ndarray:
        """Rows of all workers: (k,) numbers in, (count, k) float64 out; collective."""
        gather = self._gather
        if gather is None:
            return np.asarray(row, np.float64)[None]
        return self._in_time(lambda: gather(row), "for numbers of the other workers")

    def total(self, row: np.ndarray) -> np.ndarray:
        """Sum of `row` over the workers, (k,) float64, the same on all of them; collective."""
        return self.gather(row).sum(axis=0)

    def average_(self, arrays: Mapping[str, mx.nd.NDArray]) -> None:
        """Replaces arrays by their means over the workers; collective.

        For the running averages of BatchNorm: each worker has seen other chips.
        """
        if self.kvstore is None or not arrays:
            return
        from sniper.training.collectives import WorkerSum, mean_

        names = tuple(sorted(arrays))
        if names not in self._means:
            label = f"means{len(self._means)}"
            self._means[names] = WorkerSum(self.kvstore, label)
        mean_(self._means[names], arrays, self.count)

    def check_same(self, what: str, value: object, fix: str) -> None:
        """Makes sure that all workers have the same value; collective.

        Args:
            what: the value is, for the message.
            value: something whose `str` says all.
            fix: what the user can do when they differ.

        Raises:
            TrainingError: they differ; on all workers.
        """
        digest = hashlib.sha256(str(value).encode()).digest()[:_DIGEST_BYTES]
        # A digest has one length, whatever the value is: so have the messages of all workers.
        rows = self.gather(np.frombuffer(digest, np.uint8).astype(np.float64))
        different = [rank for rank, row in enumerate(rows) if (row != rows[0]).any()]
        if different:
            raise TrainingError(
                f"the workers disagree about {what}",
                where=f"worker {self.rank}",
                got=str(value),
                expected=f"the same on all workers; worker 0 differs from {different}",
                fix=fix,
            )

    def check_same_arrays(self, what: str, *groups: Mapping[str, mx.nd.NDArray]) -> None:
        """Makes sure that all workers have the same bits; collective.

        Raises:
            TrainingError: they differ; on all workers.
        """
        if self.kvstore is None:
            return
        digest = hashlib.sha256()
        for group in groups:
            for name in sorted(group):
                digest.update(name.encode())
                digest.update(group[name].asnumpy().tobytes())
        fix = "this should not happen: check the machines' memory, and resume from a checkpoint"
        self.check_same(what, digest.hexdigest(), fix)
        logger.info("%s are the same on all %d workers", what, self.count)

    def close(self) -> None:
        """Leaves the job together with the others; collective. Idempotent.

        Raises:
            TrainingError: the others did not come in time.
        """
        if self.kvstore is not None:
            self.barrier("the end of the other workers")
            self._gather = None
            self._means.clear()
            self._exit_code = None
            # Its destructor waits for the others once more, and stops the servers.
            self.kvstore = None
        self._heartbeat.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        elif self._exit_code is not None:
            self._exit_code = _exit_code(error)

    def _in_time(
        self, function: Callable[[], Result], what: str, limit_s: float | None = None
    ) -> Result:
        """Calls what compiled code may never return from, in a thread that can be given up."""
        limit_s = self.timeout_s if limit_s is None else limit_s
        results: list[Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 (raised below)
                errors.append(error)

        thread = threading.Thread(target=run, name="sniper-collective", daemon=True)
        thread.start()
        thread.join(limit_s)
        if errors:
            raise errors[0]
        if not results:
            raise TrainingError(
                f"worker {self.rank} has waited {what} for {limit_s:g} s",
                fix="see the messages of the other workers; `sniper launch --timeout` sets the "
                "limit",
            )
        return results[0]

    def _leave_alone(self) -> None:
        """Ends a process that failed: MXNet's own way out would wait for the other workers."""
        if self._exit_code is not None:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._exit_code)


def launched_workers() -> int:
    """Processes that train together: what `sniper launch` has started, or 1."""
    return int(os.environ[COUNT_VARIABLE]) if _is_launched() else 1


def _is_launched() -> bool:
    return os.environ.get(RANK_VARIABLE, "").isdigit()


def _check_kind(kind: str, launched: bool) -> None:
    if kind.startswith("dist") and not launched:
        raise ConfigError(
            "several training processes must be started together",
            where="default.kvstore",
            got=kind,
            fix="sniper launch -n 2 -s 1 -- main_train.py --cfg ...; "
            "or --set default.kvstore device to train in this process alone",
        )
    if launched and not kind.startswith("dist"):
        raise ConfigError(
            "`sniper launch` started this training, but it would not work with the others",
            where="default.kvstore",
            got=kind,
            expected="dist_sync",
            fix="add --set default.kvstore dist_sync",
        )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SniperError):
        return error.exit_code
    return 130 if isinstance(error, KeyboardInterrupt) else 1
