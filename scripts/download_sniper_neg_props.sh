#!/usr/bin/env bash
# Proposals for negative chips. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

default_cfg=sniper_res101_e2e

usage() {
  cat <<'EOF'
Usage: bash scripts/download_sniper_neg_props.sh [options] [--set KEY VALUE ...]

Fetches proposals.tar.gz of the 2018 release. Its address is that of August 2021: it was not tried
here, and no SHA-256 of the archive is known. An interrupted transfer goes on with the next call.
When nothing comes, this script says so and ends with a status other than 0. What else you can do:
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
[ ${#member[@]} -eq 0 ] || usage_error "--member is for weights: a set's proposals go by its name"
place_copy place-proposals proposals.tar.gz \
  "compute them: bash scripts/train_neg_props_and_sniper.sh --cfg $cfg"
