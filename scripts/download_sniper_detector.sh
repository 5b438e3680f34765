#!/usr/bin/env bash
# The SNIPER detector of 2018 (ResNet-101, COCO). See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

default_cfg=sniper_res101_e2e

usage() {
  cat <<'EOF'
Usage: bash scripts/download_sniper_detector.sh [options] [--set KEY VALUE ...]

Fetches sniper_models.tar.gz of the 2018 release, which holds several detectors, and puts the one of
the recipe where it belongs. Its address is that of August 2021: it was not tried here, and no
SHA-256 of the archive is known. An interrupted transfer goes on with the next call. When nothing
comes, this script says so and ends with a status other than 0. What else you can do:
  * You or a colleague still have a copy (.params, or the archive that it came in):
      bash scripts/download_sniper_detector.sh --file PATH
    Its names and shapes are compared with the recipe's network before it is put in place.
  * Train the model:  python main_train.py --cfg sniper_res101_e2e
    (start from the backbones of scripts/download_pretrained_models.sh)

Options:
EOF
  flags_help
  cat <<'EOF'
The file goes to where main_test.py and demo.py look for it (<output_path>/<recipe>/<sets>/).
EOF
}

parse_flags "$@"
place_copy place-weights sniper_models.tar.gz \
  "train: python main_train.py --cfg $cfg (see --help)"
