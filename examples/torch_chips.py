"""SNIPER's chips for a PyTorch trainer: a Dataset, and torchvision's Faster R-CNN on it.

    pip install torch torchvision
    sniper make-toy-data data/toy
    python examples/torch_chips.py data/toy --updates 50

MXNet is not needed. Boxes that a chip is not trained on (of another level, cut off) must be neither
objects nor background; torchvision knows no such boxes, `ignore_boxes` teaches it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.models import mobilenet_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.ops import box_iou

from sniper.chips import ChipSettings, make_epoch
from sniper.data import Record, append_flipped, filter_trainable, load_dataset
from sniper.data.cut import cut_chip
from sniper.loader.images import ImageCache
from sniper.targets.gt import gt_in_chip

# A pyramid of three levels, finest first, and the sizes of the objects that each is trained on.
CHIPS = ChipSettings(
    scales=(2.0, 0.7, 128.0),  # factors; the last one: the long side of the image, px
    valid_ranges=((-1, 50), (36, 130), (100, -1)),  # sqrt(width x height), image px
    chip_size=128,
)
# Background with a higher IoU with an ignored box is no background. What merely lies in it is: a
# large box of a coarser level may fill a chip, which would leave nothing to learn background from.
IGNORED_IOU = 0.3

Target = dict[str, torch.Tensor]


class Chips(Dataset):
    """The chips of one epoch in training order: (3, h, w) RGB from 0 to 1, and their boxes.

    Targets have `boxes` and `labels` of what is trained, and `ignored` boxes; x1 y1 x2 y2 in px of
    the chip, where x2 and y2 are the ends of the last px, as torchvision counts.
    """

    def __init__(
        self, records: Sequence[Record], epoch: int, batch_size: int, seed: int = 0
    ) -> None:
        self.records = records
        self.epoch = make_epoch(records, CHIPS, seed=seed, epoch=epoch, batch_size=batch_size)
        self.images = ImageCache()

    def __len__(self) -> int:
        return len(self.epoch.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        row, number = self.epoch.samples[index].tolist()
        record, chip = self.records[row], self.epoch.chips.chip(row, number)
        size = CHIPS.chip_size
        pixels = np.full((size, size, 3), 127, np.uint8)  # BGR; small levels do not fill a chip
        image = self.images.read(record.image_path, frame=record.frame)
        cut_chip(image, chip.rect, chip.factor, pixels, flipped=record.flipped)
        gt = gt_in_chip(record, chip.rect, chip.factor, chip.rows, size)
        ends = torch.from_numpy(gt.boxes + np.float32([0, 0, 1, 1]))
        valid, labels = torch.from_numpy(gt.valid), torch.from_numpy(gt.classes).long()
        target = {"boxes": ends[valid], "labels": labels[valid], "ignored": ends[~valid]}
        tensor = torch.from_numpy(pixels[:, :, ::-1].transpose(2, 0, 1).copy())
        return tensor.float() / 255, target


def ignore_boxes(model: FasterRCNN) -> None:
    """Has RPN and box head give no loss to background like `ignored` boxes (label -1)."""
    rpn_assign = model.rpn.assign_targets_to_anchors
    roi_assign = model.roi_heads.assign_targets_to_proposals
    roi_select = model.roi_heads.select_training_samples
    regions: list[torch.Tensor] = []

    def drop(labels: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> None:
        for label, candidates, ignored in zip(labels, boxes, regions):
            alike = (box_iou(candidates, ignored) > IGNORED_IOU).any(dim=1)
            label[(label == 0) & alike] = -1

    def assign_anchors(anchors: Any, targets: list[Target]) -> Any:
        regions[:] = [target["ignored"] for target in targets]
        labels, matched = rpn_assign(anchors, targets)
        drop(labels, anchors)
        return labels, matched

    def assign_proposals(proposals: Any, gt_boxes: Any, gt_labels: Any) -> Any:
        matched, labels = roi_assign(proposals, gt_boxes, gt_labels)
        drop(labels, proposals)
        return matched, labels

    def select(proposals: Any, targets: list[Target]) -> Any:
        regions[:] = [target["ignored"] for target in targets]
        return roi_select(proposals, targets)

    model.rpn.assign_targets_to_anchors = assign_anchors
    model.roi_heads.assign_targets_to_proposals = assign_proposals
    model.roi_heads.select_training_samples = select


def small_mobilenet() -> BackboneWithFPN:
    """A half-width MobileNetV2 with FPN, from scratch, narrow enough for a CPU.

    It begins at stride 8; torchvision's own one begins at 32, too coarse for small chips.
    """
    features = mobilenet_v2(width_mult=0.5).features
    layers = {"6": "0", "13": "1", "17": "2"}  # strides 8, 16, 32
    return BackboneWithFPN(features, layers, [16, 48, 160], 64, norm_layer=torch.nn.BatchNorm2d)


def detector(num_classes: int, backbone: BackboneWithFPN) -> FasterRCNN:
    """A Faster R-CNN for chips on a backbone with strides 8, 16, 32 and 64, and 64 channels."""
    sizes = ((8, 12, 18), (26, 36, 50), (72, 100, 140), (180, 240, 320))
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        # Of each chip, and a chip is a small part of an image.
        rpn_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        box_batch_size_per_image=64,
        box_head=TwoMLPHead(64 * 7 * 7, 256),
        box_predictor=FastRCNNPredictor(256, num_classes),
    )
    # The chips have the right size. Resized, they would be of other levels than their boxes.
    model.transform.resize = lambda image, target=None: (image, target)
    ignore_boxes(model)
    return model


def train(records: Sequence[Record], num_classes: int, updates: int, batch_size: int = 8) -> Any:
    """Trains for some updates; every epoch has other chips. Returns the model."""
    torch.manual_seed(0)
    model = detector(num_classes, small_mobilenet()).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    sets = (Chips(records, epoch, batch_size) for epoch in itertools.count())
    batches = itertools.chain.from_iterable(
        DataLoader(chips, batch_size, collate_fn=lambda rows: tuple(zip(*rows))) for chips in sets
    )
    for number, (images, targets) in enumerate(itertools.islice(batches, updates), 1):
        losses = model(list(images), list(targets))
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        figures = ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
        print(f"update {number} of {updates}: {figures}", flush=True)
    return model


def main() -> None:
    """Reads the arguments, trains on `<folder>/.../instances_train.json`, writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="data set in COCO layout")
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("chips.pt"))
    args = parser.parse_args()
    dataset = load_dataset("coco", args.folder, "train")
    records = filter_trainable(append_flipped(dataset.records))
    model = train(records, len(dataset.class_names), args.updates)
    torch.save(model.state_dict(), args.out)


if __name__ == "__main__":
    main()
