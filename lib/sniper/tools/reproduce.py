"""`sniper reproduce`: whether a run gives the same weights again, and if not, where it parts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sniper.errors import ConfigError
from sniper.tools.arguments import (
    add_json_flag,
    add_set_flag,
    as_positive,
    command_parser,
    write_json,
)
from sniper.tools.cli import EXIT_FAILED, run_main

if TYPE_CHECKING:
    from sniper.runs.reproduce import Outcome

_DESCRIPTION = """\
Repeats the first updates of a training run in a scratch folder and compares every batch and all
weights with the digests that the run has left. Says beforehand what is different here: processor,
threads, packages, code, settings, images and annotations by name. Exit code 0: all is identical;
1: something differs, and the first place is named; 2 or 3: wrong arguments or missing data.
"""
_RUN = "output/sniper_res18_toy/sniper_res18_toy/train"
_EPILOG = f"""\
examples (the quickstart's run):
  sniper reproduce {_RUN}
  sniper reproduce {_RUN} --updates 20 --data data/toy
  sniper reproduce {_RUN} --set TRAIN.NUM_PROCESS 0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper reproduce", _DESCRIPTION, _EPILOG)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the checkpoints of a run")
    parser.add_argument(
        "--updates",
        type=as_positive,
        default=50,
        metavar="N",
        help="updates to repeat (default: %(default)s)",
    )
    parser.add_argument(
        "--from",
        dest="epoch",
        type=as_positive,
        metavar="E",
        help="begin with the checkpoint of epoch E (default: with the start of the run)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the data set, if it has moved (default: dataset.dataset_path of the run)",
    )
    add_json_flag(parser)
    add_set_flag(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if not args.run.is_dir():
        raise ConfigError(
            "RUN is the folder of a run's checkpoints",
            got=args.run,
            expected="<output_path>/<recipe>/<training sets>",
        )
    from sniper.process import start_logging
    from sniper.runs.reproduce import reproduce

    start_logging()
    told: list[str] = []
    # `--json -` has the standard output to itself.
    stream = sys.stderr if str(args.json) == "-" else sys.stdout

    def tell(line: str) -> None:
        if not told:
            print("different from the run, before anything is trained:", file=stream)
        told.append(line)
        print(f"  {line}", file=stream, flush=True)

    outcome = reproduce(
        args.run,
        updates=args.updates,
        epoch=args.epoch,
        data=args.data,
        overrides=args.overrides,
        on_line=tell,
    )
    if not told:
        print("the same machine, packages, code, settings and data as the run's", file=stream)
    print(_result(outcome), file=stream)
    if args.json is not None:
        write_json(args.json, {"identical": outcome.difference is None, **asdict(outcome)})
    return 0 if outcome.difference is None else EXIT_FAILED


def _result(outcome: Outcome) -> str:
    last = outcome.first_update + outcome.updates - 1
    compared = (
        f"updates {outcome.first_update} to {last}; compared {outcome.batches} batches, and the "
        f"weights {outcome.weights} times"
    )
    if outcome.difference is None:
        return f"IDENTICAL: {compared}; the last weights are {outcome.digest}"
    cause = (
        "; what was told above may be the cause"
        if outcome.changes
        else "; nothing that was looked at explains it: the machine, or numbers that are not the "
        "same in every run (GPUs), may be the cause"
    )
    return f"DIFFERENT at {outcome.difference}\n  ({compared}{cause})"
