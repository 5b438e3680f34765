"""Errors that a user can cause. Each message says what, where, got, expected and what to do."""

from __future__ import annotations


class SniperError(Exception):
    """Base of all errors that the command line shows as a message instead of a traceback.

    Args:
        what: one sentence that says what went wrong.
        where: the file, key, image or operator concerned.
        got: the value found.
        expected: what would have been right.
        fix: what the user can do.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        parts = [what]
        for label, value in (("where", where), ("got", got), ("expected", expected), ("fix", fix)):
            if value is not None:
                parts.append(f"  {label}: {value}")
        super().__init__("\n".join(parts))

    def __reduce__(self) -> tuple:
        # The default would call __init__ with the whole message, which is right: it has no labels.
        return type(self), (self.args[0],)


class ConfigError(SniperError):
    """A configuration file, a `--set` pair or a flag is wrong."""

    exit_code = 2


class DataError(SniperError):
    """Images, annotations or proposals are missing, broken or do not fit together."""

    exit_code = 3


class OpsError(SniperError):
    """The operator library is missing, or an operator was called with wrong arguments."""


class TrainingError(SniperError):
    """A run failed: a worker died, a loss became NaN, a checkpoint could not be written."""


def without_mxnet() -> ConfigError:
    """The error of whatever needs MXNet where it is not installed."""
    return ConfigError(
        "this needs MXNet, which is not installed",
        expected="without MXNet: detection with an archive of `sniper export --format onnx`, the "
        "tools for data, and the chips",
        fix="pip install mxnet==1.9.1 (Python 3.9 to 3.12, NumPy below 2); for all that a copy of "
        "this project needs: pip install -r requirements.txt",
    )
