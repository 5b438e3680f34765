#!/usr/bin/env bash
# Negative chip mining in three steps: train the proposal network, extract its proposals on every
# training set, train the detector with negative chips cut around false alarms.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<EOF
Usage: bash scripts/train_neg_props_and_sniper.sh --cfg FILE [options]
  --cfg FILE              recipe of the detector
  --prop_save_path DIR    where the proposals go        (default: data/computed_proposals)
  --prop_train_path DIR   output of the proposal network (default: output/sniper_neg_proposals)
  --rpn_epochs N          epochs of the proposal network (default: 2)
  --help                  this text
EOF
}

cfg='' save=data/computed_proposals train=output/sniper_neg_proposals epochs=2
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage; exit 0 ;;
    --cfg|--prop_save_path|--prop_train_path|--rpn_epochs)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; usage >&2; exit 2; }
      case $1 in
        --cfg) cfg=$2 ;;
        --prop_save_path) save=$2 ;;
        --prop_train_path) train=$2 ;;
        --rpn_epochs) epochs=$2 ;;
      esac
      shift 2 ;;
    *) echo "unknown argument: $1" >&2; usage >&2; exit 2 ;;
  esac
done
[ -n "$cfg" ] || { echo "--cfg is missing" >&2; usage >&2; exit 2; }
[ -x .venv/bin/python ] && export PATH="$PWD/.venv/bin:$PATH"

rpn=(TRAIN.ONLY_PROPOSAL True TRAIN.USE_NEG_CHIPS False TRAIN.end_epoch "$epochs" output_path "$train")
echo "== 1/3 training the proposal network"
python main_train.py --cfg "$cfg" --resume --set "${rpn[@]}"
value() { python -c 'import sys; from sniper.config import load_config
cfg = load_config(sys.argv[1])
print(cfg.dataset.image_set, cfg.output_path.rstrip("/"))' "$cfg"; }
read -r sets output <<<"$(value)"
for set in ${sets//+/ }; do
  echo "== 2/3 extracting proposals of $set"
  python main_test.py --cfg "$cfg" --set "${rpn[@]}" TEST.TEST_EPOCH "$epochs" TEST.EXTRACT_PROPOSALS True \
    dataset.test_image_set "$set" TEST.PROPOSAL_SAVE_PATH "$save"
done
echo "== 3/3 training the detector with negative chips"
# A folder of its own: a detector that was trained without negative chips stays as it is.
python main_train.py --cfg "$cfg" --resume --set TRAIN.USE_NEG_CHIPS True proposal_path "$save" \
  output_path "${output}_neg"
echo "== done; test it with: python main_test.py --cfg $cfg --set output_path ${output}_neg"
