#!/usr/bin/env bash
# Proposals for negative chips. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

default_cfg=sniper_res101_e2e

usage() {
  cat <<'EOF'
Usage: bash scripts/download_sniper_neg_props.sh [options] [--set KEY VALUE ...]

The proposals that the authors published in 2018 are gone: their addresses no longer answer. Without
--file or --url this script says so and ends with status 1. What you can do:
  * Compute your own, for any data set:  bash scripts/train_neg_props_and_sniper.sh --cfg F
  * You or a colleague still have COCO_train2014_rpn.pkl and COCO_val2014_rpn.pkl, or the archive:
      bash scripts/download_sniper_neg_props.sh --file PATH
    The files are compared with images and annotations of the recipe's training sets, which must be
    there, and stored as NPZ in proposal_path. Pickles are read by a reader that knows arrays only.

Options:
EOF
  flags_help
}

parse_flags "$@"
place_copy place-proposals proposals \
  "compute them: bash scripts/train_neg_props_and_sniper.sh --cfg $cfg"
