#!/usr/bin/env bash
# The SNIPER detector of 2018 (ResNet-101, COCO). See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

default_cfg=sniper_res101_e2e

usage() {
  cat <<'EOF'
Usage: bash scripts/download_sniper_detector.sh [options] [--set KEY VALUE ...]

The detector weights that the authors published in 2018 are gone: their addresses no longer
answer. Without --file or --url this script says so and ends with status 1. What you can do:
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
place_copy place-weights "the detector weights" \
  "train: python main_train.py --cfg $cfg (see --help)"
