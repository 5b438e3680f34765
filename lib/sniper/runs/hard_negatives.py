"""Hard negative mining: a detector is trained on with chips around its own errors.

Negative chips of 2018 lie around the false alarms of a proposal network, which comes before the
detector. What the detector itself still takes for objects is known once it is trained.
"""

from __future__ import annotations

import copy
import logging
import re
from pathlib import Path

from easydict import EasyDict

from sniper.errors import ConfigError
from sniper.runs.find_weights import weights_path
from sniper.runs.folders import mining_folder, model_folder
from sniper.runs.mining import extract_proposals
from sniper.runs.train import train

logger = logging.getLogger(__name__)

SUFFIX = "_hard"
# One detection of what is no object is enough for a chip, and all chips of an image are taken.
_MIN_FALSE_ALARMS, _MAX_NEG_CHIPS = [0.5, 0.5], 6
_LR_SHARE, _EPOCHS_AT_FULL_RATE = 1 / 3, 1 / 2


def hard_config(trained: EasyDict, epochs: int, save_prefix: str = "SNIPER") -> EasyDict:
    """The configuration of the training that follows, in a folder of its own.

    Args:
        trained: that of the trained detector.
        epochs: of the new training.
        save_prefix: stem of the checkpoint files.

    Raises:
        ConfigError: the configuration trains a proposal network, or its checkpoint has no number.
        DataError: there are no weights.
    """
    if trained.TRAIN.ONLY_PROPOSAL:
        raise ConfigError(
            "hard negatives are errors of a detector",
            where="TRAIN.ONLY_PROPOSAL",
            got="true",
            expected="a recipe that trains a detector",
        )
    weights = weights_path(model_folder(trained), trained.TEST.TEST_EPOCH, save_prefix)
    match = re.fullmatch(r"(.+)-(\d{4,})\.params", str(weights))
    if match is None:
        raise ConfigError(
            "a checkpoint with the number of its epoch is needed to train on",
            got=weights,
            expected=f"{save_prefix}-NNNN.params",
        )
    hard = copy.deepcopy(trained)
    hard.output_path = trained.output_path.rstrip("/") + SUFFIX
    hard.proposal_path = str(mining_folder(hard))
    hard.network.update(pretrained=match[1], pretrained_epoch=int(match[2]))
    hard.TRAIN.update(
        USE_NEG_CHIPS=True,
        MIN_FALSE_ALARMS=_MIN_FALSE_ALARMS,
        MAX_NEG_CHIPS=max(_MAX_NEG_CHIPS, trained.TRAIN.MAX_NEG_CHIPS),
        lr=trained.TRAIN.lr * _LR_SHARE,
        lr_step=f"{max(epochs * _EPOCHS_AT_FULL_RATE, 0.5):.4g}",
        end_epoch=epochs,
    )
    hard.TEST.TEST_EPOCH = epochs
    return hard


def train_on_errors(
    trained: EasyDict, hard: EasyDict, *, display: int = 100, save_prefix: str = "SNIPER"
) -> Path:
    """Detects on the training sets, then trains with chips around what is no object.

    Both stages go on where an earlier call stopped.

    Args:
        trained: the configuration of the trained detector.
        hard: see `hard_config`.
        display: batches between progress lines.
        save_prefix: stem of the checkpoint files.

    Returns:
        The model folder of the new detector.

    Raises:
        ConfigError, DataError, TrainingError: see `sniper.runs.train.train` and
            `sniper.runs.test.test`.
    """
    detector = copy.deepcopy(trained)
    detector.output_path = str(mining_folder(hard) / "detector")
    detector.TEST.update(EXTRACT_PROPOSALS="detections", PROPOSAL_SAVE_PATH=hard.proposal_path)
    start = hard.network
    weights = Path(f"{start.pretrained}-{start.pretrained_epoch:04d}.params")
    logger.info("1 of 2: what %s takes for objects in the training images", weights)
    extract_proposals(detector, weights, resume=True)
    logger.info(
        "2 of 2: %d epochs with chips around its errors, learning rate %.3g, in %s",
        *(hard.TRAIN.end_epoch, hard.TRAIN.lr, model_folder(hard)),
    )
    return train(hard, display=display, save_prefix=save_prefix, resume=True)
