#!/usr/bin/env bash
# Proposals for negative chips. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/fetch.sh

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
  --file PATH     take this file: .npz, .pkl, or an archive of them
  --url ADDRESS   fetch it from here; needs --sha256
  --sha256 HEX    what the file must have
  --size BYTES    what the file must have
  --overwrite     replace another result that is there already
  --cfg F         recipe, a file or a shipped name (default: sniper_res101_e2e)
  --set K V ...   overrides of the recipe, must be last
  --help          this text
EOF
}

cfg=sniper_res101_e2e
parse_flags "$@"
[ ${#rest[@]} -eq 0 ] || usage_error "unexpected argument: ${rest[0]}"
if [ -z "$file$url" ]; then
  complain "the 2018 downloads of proposals are gone" \
    "fix: give a copy with --file PATH, or compute them: bash scripts/train_neg_props_and_sniper.sh --cfg $cfg"
  exit $EXIT_TRANSFER
fi
local_or_url "$(name_of_url "$url")"
sniper_tool place-proposals "$got" ${overwrite[@]+"${overwrite[@]}"} --cfg "$cfg" --set ${own[@]+"${own[@]}"}
