"""What a model is: its network, data, settings and figures, for every archive and for the eye."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sniper.config.yaml_files import read_yaml
from sniper.data.cache import file_sha256
from sniper.errors import ConfigError, DataError
from sniper.evaluation.report import settings_text
from sniper.models.archive_file import INT8, META, read_meta
from sniper.runs.load_model import is_archive
from sniper.runs.plan import TestPlan

logger = logging.getLogger(__name__)

_SHOWN_CLASSES = 12


def model_card(plan: TestPlan, weights: Path) -> dict[str, Any]:
    """The card of weights, as plain values.

    Args:
        plan: of the network.
        weights: their file; one that is an archive passes its own card on, but for `detection`.

    Returns:
        `recipe`, `trained_on`, `training`, `detection`, `weights` and `tested`: the figures of
        tests of these very weights, whose reports lie in the recipe's folder of results.
    """
    if is_archive(weights):
        card = read_meta(weights).get("card")
        if card is not None:
            return {**card, "detection": detector_settings(plan)}
    config = _config_of_training(plan, weights)
    train, data = config["TRAIN"], config["dataset"]
    digest = file_sha256(weights)
    updates = {"most_updates": train["MAX_UPDATES"]} if train.get("MAX_UPDATES") else {}
    return {
        "recipe": plan.name,
        "trained_on": {"format": data["dataset"], "sets": data["image_set"].split("+")},
        "training": {
            "epochs": train["end_epoch"],
            **updates,
            "learning_rate": train["lr"],
            "chip_size_px": train["CHIP_SIZE"],
            "scales": train["SCALES"],
            "valid_ranges_px": train["VALID_RANGES"],
        },
        "detection": detector_settings(plan),
        "weights": {"file": weights.name, "sha256": digest},
        "tested": _reports(plan, digest),
    }


def _config_of_training(plan: TestPlan, weights: Path) -> Mapping[str, Any]:
    """What training left beside its weights; else the configuration that is asked for."""
    config = yaml.safe_load(plan.config)
    file = weights.parent / "config.yml"
    if file.is_file():
        with contextlib.suppress(ConfigError):
            left = read_yaml(file)
            if {"TRAIN", "dataset"} <= set(left) and set(config["TRAIN"]) <= set(left["TRAIN"]):
                return left
    logger.info(
        "the model card takes the training from the recipe: no configuration is beside %s", weights
    )
    return config


def detector_settings(plan: TestPlan) -> dict[str, object]:
    """How a plan detects, as reports print it beside every number: mode, scales, NMS."""
    merge = plan.merge
    soft = f"soft, sigma {merge.sigma:g}" if merge.sigma > 0 else "none"
    voting = {"box_voting": f"IoU {merge.box_voting:g}"} if merge.box_voting > 0 else {}
    most = max(level.max_pixels for level in plan.levels)
    bound = {"max_pixels": most} if most else {}
    flip = {"flip": True} if plan.flip else {}
    return {
        "mode": plan.mode,
        "scales": [_scale_text(level.scale) for level in plan.levels],
        "NMS": f"IoU {merge.nms_threshold:g}" if merge.nms_threshold > 0 else soft,
        "boxes_per_image": merge.max_per_image if merge.max_per_image > 0 else "unlimited",
        **voting,
        **bound,
        **flip,
    }


def _scale_text(scale: tuple[int, int] | float) -> str:
    return f"{scale[0]}x{scale[1]}" if isinstance(scale, tuple) else f"x{scale:g}"


def _reports(plan: TestPlan, digest: str) -> list[dict[str, Any]]:
    """Figures of every set that these weights were tested on."""
    tested = []
    for name in dict.fromkeys(plan.recipe_sets):
        path = plan.results_dir / f"detections_{name}_report.json"
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if report.get("weights_sha256") != digest:
            logger.info("%s is of other weights, and left out of the model card", path)
            continue
        figures = {key: value for key, value in report.items() if isinstance(value, float)}
        tested.append({"set": name, "figures": figures, "settings": report.get("settings", {})})
    return tested


def card_text(path: Path) -> str:
    """What an archive holds, for the eye.

    Raises:
        DataError: the file is missing, damaged or no archive.
    """
    meta = read_meta(path)
    try:
        return _card_text(meta)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "the description of the model is no model card",
            where=f"{META} of {path}",
            got=f"{type(error).__name__}: {error}",
            fix="export the model again",
        ) from error


def _card_text(meta: Mapping[str, Any]) -> str:
    classes = meta.get("classes", [])[1:]
    more = f", and {len(classes) - _SHOWN_CLASSES} more" if classes[_SHOWN_CLASSES:] else ""
    engine = "ONNX graphs" if meta.get("engine") else "MXNet"
    card: Mapping[str, Any] = meta.get("card", {})
    weights = card.get("weights", {})
    lines = [
        ("network", f"{meta.get('network')}, {meta.get('precision', 'fp32')}, {engine}"),
        ("classes", f"{len(classes)}: {', '.join(classes[:_SHOWN_CLASSES])}{more}"),
        ("recipe", card.get("recipe", "not known: an archive of an older version")),
        ("trained on", settings_text(card.get("trained_on", {}))),
        ("training", settings_text(card.get("training", {}))),
        ("detection", settings_text(card.get("detection", {}))),
        # A quantised detector brings the figures of the weights that it was made of.
        *(
            ("in fp32" if meta.get("precision") == INT8 else "tested", _tested_text(report))
            for report in card.get("tested", [])
        ),
        ("weights", f"{weights['file']}, SHA-256 {weights['sha256']}" if weights else ""),
        ("made with", f"sniper {meta.get('sniper_version')}, MXNet {meta.get('mxnet_version')}"),
        *(
            (name, f"{about['size'] / 2**20:.1f} MiB, SHA-256 {about['sha256']}")
            for name, about in meta["members"].items()
        ),
    ]
    if card and not card.get("tested"):
        lines.insert(-len(meta["members"]) - 2, ("tested", "no test of these weights was found"))
    lines = [(name, text) for name, text in lines if text]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _tested_text(report: Mapping[str, Any]) -> str:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in report["figures"].items())
    return f"{report['set']}: {figures} ({settings_text(report['settings'])})"
