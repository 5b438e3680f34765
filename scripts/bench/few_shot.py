"""New classes from pictures against the same classes learnt with boxes, on generated scenes.

A detector of the classes that training sees is taught the 20 classes held out, from pictures of one
object each, and finds them in the scenes of the split `novel`. Another detector, trained with boxes
of all 140 classes, looks at the same scenes; of its detections those of the 20 classes count.

    sniper make-toy-data data/toy_fine --fine
    sniper make-toy-data data/toy_fine_all --fine --held-out 0
    python main_train.py --cfg mobilenetv2_3k_toy
    python main_train.py --cfg mobilenetv2_3k_toy --set dataset.dataset_path data/toy_fine_all \\
        dataset.NUM_CLASSES 141 output_path output/all_classes
    python scripts/bench/few_shot.py --cfg mobilenetv2_3k_toy --boxes-cfg FILE/config.yml
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from easydict import EasyDict

from sniper import Predictor, load_config
from sniper.data import load_dataset
from sniper.data.dataset import Dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.data.picture_folders import HoldOut, class_folders
from sniper.evaluation import protocol_of
from sniper.inference.prediction import Prediction
from sniper.runs.fit_classes import FitOptions, fit_classes
from sniper.runs.picture_features import PictureFeatures
from sniper.runs.predictor import plan_and_model


def main() -> int:
    """Prints AP50 of both and their ratio."""
    args = _parser().parse_args()
    dataset = load_dataset("coco", str(args.data), "novel")
    result: dict[str, object] = {}
    cfg = load_config(args.cfg)
    for size in args.sizes or [int(cfg.TRAIN.CHIP_SIZE)]:
        for normalise in (False, True):
            name = f"{size} px{', length 1' if normalise else ''}"
            result[name] = _from_pictures(args, cfg, dataset, size, normalise)
            print(name, json.dumps(result[name]), flush=True)
    if args.boxes_cfg:
        predictor = Predictor(load_config(args.boxes_cfg), args.boxes_weights)
        result["with boxes"] = {"ap50": _ap50(predictor, dataset)}
        print("with boxes", json.dumps(result["with boxes"]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/toy_fine"), help="made with --fine")
    parser.add_argument("--cfg", required=True, help="recipe of the detector to be taught")
    parser.add_argument("--weights", help="its weights (default: of its training)")
    parser.add_argument("--boxes-cfg", help="recipe of the detector that had boxes")
    parser.add_argument("--boxes-weights", help="its weights (default: of its training)")
    parser.add_argument("--pictures", type=int, default=10, help="of each class, to learn from")
    parser.add_argument("--sizes", type=int, nargs="*", help="long sides of pictures, px")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser


def _from_pictures(
    args: argparse.Namespace, cfg: EasyDict, dataset: Dataset, size: int, normalise: bool
) -> dict[str, float]:
    plan, model = plan_and_model(cfg, args.weights)
    features = PictureFeatures(plan, model, size_px=size, cache_dir=args.data / "feature_cache")
    options = FitOptions(HoldOut(learn_from=args.pictures), normalise=normalise)
    start_s = time.perf_counter()
    fitted = fit_classes(class_folders(args.data / "few_shot"), features, options)
    all_s = time.perf_counter() - start_s
    predictor = Predictor(cfg, args.weights, classes=fitted.classes)
    return {
        "accuracy": fitted.report.accuracy,
        "fit_s": fitted.fit_s,
        "with_features_s": all_s,
        "ap50": _ap50(predictor, dataset),
    }


def _ap50(predictor: Predictor, dataset: Dataset) -> float:
    predictions = predictor([record.image_path for record in dataset.records])
    of_name = {name: place for place, name in enumerate(dataset.class_names)}
    table = table_of([_known(prediction, of_name) for prediction in predictions])
    return float(protocol_of(dataset).evaluate(dataset, table).ap50)


def _known(prediction: Prediction, of_name: dict[str, int]) -> ImageDetections:
    """Detections of the data set's classes, by its numbers."""
    places = np.array([of_name.get(name, 0) for name in prediction.class_names], np.int32)
    classes = places[prediction.classes]
    rows = np.concatenate([prediction.boxes, prediction.scores[:, None]], axis=1)
    kept = np.flatnonzero(classes > 0)
    order = kept[np.argsort(classes[kept], kind="stable")]
    return ImageDetections(rows[order].astype(np.float32), classes[order])


if __name__ == "__main__":
    sys.exit(main())
