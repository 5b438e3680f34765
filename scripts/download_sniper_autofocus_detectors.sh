#!/usr/bin/env bash
# The AutoFocus detectors of 2018 (boxes, and boxes with masks). See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

default_cfg=sniper_res101_e2e_autofocus

usage() {
  cat <<'EOF'
Usage: bash scripts/download_sniper_autofocus_detectors.sh [options] [--set KEY VALUE ...]

The detectors with AutoFocus that the authors published in 2018 are gone: their addresses no longer
answer. Without --file or --url this script says so and ends with status 1. What you can do:
  * You or a colleague still have a copy (.params, or the archive that it came in):
      bash scripts/download_sniper_autofocus_detectors.sh --file PATH
    (with masks: --cfg sniper_res101_e2e_mask_autofocus)
    Its names and shapes are compared with the recipe's network before it is put in place.
  * Train the model:  python main_train.py --cfg sniper_res101_e2e_autofocus
    (start from the backbones of scripts/download_pretrained_models.sh)

Options:
EOF
  flags_help
  cat <<'EOF'
The file goes to where main_test.py and demo.py look for it (<output_path>/<recipe>/<sets>/).
EOF
}

parse_flags "$@"
place_copy place-weights "the detectors with AutoFocus" \
  "train: python main_train.py --cfg $cfg (see --help)"
