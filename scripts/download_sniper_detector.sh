#!/usr/bin/env bash
# The SNIPER detector of 2018 (ResNet-101, COCO). See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

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
  --file PATH     take this file
  --url ADDRESS   fetch it from here; needs --sha256
  --sha256 HEX    what the file must have
  --size BYTES    what the file must have
  --overwrite     replace another result that is there already
  --cfg F         recipe of the detector, a file or a shipped name (default: sniper_res101_e2e)
  --set K V ...   overrides of the recipe, must be last
  --help          this text
The file goes to where main_test.py and demo.py look for it (<output_path>/<recipe>/<sets>/).
EOF
}

cfg=sniper_res101_e2e
parse_flags "$@"
[ ${#rest[@]} -eq 0 ] || usage_error "unexpected argument: ${rest[0]}"
if [ -z "$file$url" ]; then
  complain "the 2018 downloads of the detector weights are gone" \
    "fix: give a copy with --file PATH, or train: python main_train.py --cfg $cfg (see --help)"
  exit $EXIT_TRANSFER
fi
local_or_url "$(name_of_url "$url")"
sniper_tool place-weights "$got" ${overwrite[@]+"${overwrite[@]}"} --cfg "$cfg" --set ${own[@]+"${own[@]}"}
