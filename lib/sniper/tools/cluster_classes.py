"""`sniper cluster-classes`: super-classes for R-FCN-3K, by what a classifier sees in each class."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sniper.data.class_clusters import cluster_classes, read_class_features
from sniper.tools.arguments import add_out_flag, as_count, as_positive, command_parser, write_json
from sniper.tools.cli import run_main
from sniper.tools.explain.training_set import log_to_stderr

logger = logging.getLogger(__name__)

_SHOWN = 8

_DESCRIPTION = """\
Groups classes to super-classes by k-means over the mean features of each class, and writes a table
for network.SUPER_CLASSES: {"0": ["n02084071", ...], "1": [...]}.

Features come from an NPZ file with `names` (C,), `features` (n, D) and `labels` (n,): class 0 ...
C-1 of each row; without labels there is one row for each class. `sniper fit-classes` writes such a
file for folders of pictures. k-means is that of scikit-learn: pip install "sniper-mxnet[cluster]".
"""
_EPILOG = """\
examples:
  sniper fit-classes pictures/ --holdout 0 --cfg my.yml --out classes.npz
  sniper cluster-classes --features classes.npz --clusters 5 --out super_classes.json
  python main_train.py --cfg mobilenetv2_3k_toy --set network.SUPER_CLASSES super_classes.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; 0, 2 for wrong flags or without scikit-learn, 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper cluster-classes", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--features", type=Path, required=True, metavar="FILE.npz", help="features of the classes"
    )
    parser.add_argument(
        "--clusters", type=as_positive, required=True, metavar="K", help="number of super-classes"
    )
    add_out_flag(parser, "FILE.json", "the table", required=True)
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="divide the features of each class by their length",
    )
    parser.add_argument(
        "--seed", type=as_count, default=0, metavar="N", help="of k-means (default: %(default)s)"
    )
    return parser


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    log_to_stderr()
    classes = read_class_features(args.features)
    table = cluster_classes(classes, args.clusters, normalise=args.normalise, seed=args.seed)
    write_json(args.out, table)
    if str(args.out) != "-":
        _tell(table)
        logger.info("%d classes in %d super-classes: %s", len(classes.names), len(table), args.out)
    return 0


def _tell(table: Mapping[str, Sequence[str]]) -> None:
    for number, members in table.items():
        more = f" and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
        print(f"{number}: {len(members)} classes: {', '.join(members[:_SHOWN])}{more}")


if __name__ == "__main__":
    sys.exit(main())
