#!/usr/bin/env bash
# From a fresh checkout to a trained, tested detector: environment, operators, toy data, training,
# test on the image pyramid, a picture with detections. A second call reuses what is there.
# Usage: bash scripts/quickstart.sh [RECIPE]      (default: sniper_mobilenetv2_toy)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

recipe=${1:-sniper_mobilenetv2_toy}
started=$(date +%s)
say() { printf '\n== %s  (%d s so far)\n' "$1" $(($(date +%s) - started)); }

ensure_environment
say "checking the installation"
sniper doctor
say "toy data set: data/toy"
sniper make-toy-data data/toy
say "training $recipe (goes on where it stopped, or is done already)"
python main_train.py --cfg "$recipe" --resume
say "testing on the held-out toy images"
python main_test.py --cfg "$recipe"
say "drawing the demo picture"
python demo.py --cfg "$recipe" --im_path data/demo/demo.jpg
say "done"
cat <<EOF
Weights, log, resolved configuration: output/$recipe/$recipe/train/
COCO results and report:              output/$recipe/results/
Picture with detections:              data/demo/demo_detections.jpg
Next: .venv/bin/python demo.py --im_path YOUR.jpg   or   the README, "Your own data".
EOF
