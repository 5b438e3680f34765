#!/usr/bin/env bash
# From a fresh checkout to a trained, tested detector: environment, operators, toy data, training,
# test on the image pyramid, a picture with detections. A second call reuses what is there.
# Usage: bash scripts/quickstart.sh [RECIPE]      (default: sniper_res18_toy)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

recipe=${1:-sniper_res18_toy}
started=$(date +%s)
say() { printf '\n== %s  (%d s so far)\n' "$1" $(($(date +%s) - started)); }

case $recipe in
  sniper_res18_toy) duration="7 to 12 minutes" ;;
  sniper_mobilenetv2_toy_long) duration="half an hour" ;;
  *) duration="as long as its recipe says" ;;
esac
cat <<EOF
This takes $duration on two cores, most of it training, and 2 GB of disk; it can be stopped with
Ctrl-C and started again. The first time, the environment comes on top: some minutes, by the network.
EOF
ensure_environment
say "1 of 6: checking the installation"
sniper doctor
say "2 of 6: toy data set in data/toy (a minute)"
sniper make-toy-data data/toy
say "3 of 6: training $recipe (goes on where it stopped, or is done already)"
python main_train.py --cfg "$recipe" --resume
say "4 of 6: testing on the held-out toy images (half a minute)"
python main_test.py --cfg "$recipe"
say "5 of 6: what is wrong with the results"
sniper analyze --cfg "$recipe"
say "6 of 6: drawing the demo picture, at the score with the best F1"
python demo.py --cfg "$recipe" --im_path data/demo/demo.jpg --threshold best
say "done"
cat <<EOF
Weights, log, resolved configuration: output/$recipe/$recipe/train/
COCO results, report, analysis:       output/$recipe/results/
Picture with detections:              output/$recipe/demo/demo_detections.jpg
Next: .venv/bin/python demo.py --im_path YOUR.jpg   or   docs/first_hour.md: your own data.
EOF
