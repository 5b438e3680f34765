"""What a detector found in one image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sniper.data.detections import ImageDetections, check_threshold
from sniper.data.ids import FileId
from sniper.data.rle import segmentation
from sniper.data.video import Frame
from sniper.vis.draw import draw_detections

# Objects in the one line of a `repr`.
_SHOWN = 4


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """n objects, the best scores first.

    Attributes:
        name: of the image in its source; see `SourceImage`.
        width: of the image, px.
        height: of the image, px.
        boxes: (n, 4) float32 x1 y1 x2 y2, image px.
        scores: (n,) float32, 0 to 1, descending.
        classes: (n,) int32, 1 ... C-1, indices of `class_names`.
        class_names: index 0 is the background.
        masks: compressed COCO run lengths of each object (`pycocotools.mask.decode({"size":
            [height, width], "counts": mask})`); None if the network has no masks.
        path: the image or video file; None for arrays.
        frame: place in the video; None for images.
        category_ids: id of each class in the annotation files that the model was trained with, 0
            for the background; None: not known.
    """

    name: str
    width: int
    height: int
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    class_names: tuple[str, ...]
    masks: list[bytes] | None = None
    path: str | None = None
    frame: Frame | None = None
    category_ids: tuple[FileId, ...] | None = None

    def __len__(self) -> int:
        """n."""
        return len(self.scores)

    def __repr__(self) -> str:
        """One line: the image and its best objects."""
        names = [self.class_names[index] for index in self.classes[:_SHOWN].tolist()]
        best = [f"{name} {score:.2f}" for name, score in zip(names, self.scores.tolist())]
        objects = f"{len(self)} object{'' if len(self) == 1 else 's'}"
        if best:
            objects += f": {', '.join(best)}{', ...' if len(self) > _SHOWN else ''}"
        return f"<Prediction {self.name!r} {self.width}x{self.height}, {objects}>"

    def filter(self, threshold: float) -> Prediction:
        """The objects with a score of at least `threshold`.

        Raises:
            ConfigError: it is not from 0 to 1.
        """
        kept = np.flatnonzero(self.scores >= check_threshold(threshold))
        masks = None if self.masks is None else [self.masks[row] for row in kept]
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            classes=self.classes[kept],
            masks=masks,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        Each object has the keys of a COCO result (`category_id` is that of the annotation files, or
        `class_index` where the model does not know it; `bbox` is x, y, x2 - x1 + 1, y2 - y1 + 1 as
        in COCO result files of 2018; `segmentation` where there are masks), the name of its
        `category`, and `class_index` into the model's list of classes.
        """
        entry: dict[str, Any] = {"name": self.name, "width": self.width, "height": self.height}
        if self.path is not None:
            entry["path"] = self.path
        if self.frame is not None:
            entry |= {"frame": self.frame.index, "time_s": self.frame.time_s}
        return {**entry, "detections": [self._object(row) for row in range(len(self))]}

    def draw(self, image_bgr: np.ndarray, threshold: float = 0.5) -> np.ndarray:
        """A copy of the image (H, W, 3) uint8 with boxes, labels and masks.

        Args:
            image_bgr: the image that this is the prediction of.
            threshold: objects below this score are left out.

        Raises:
            DataError: this is no colour image.
            ConfigError: the threshold is not from 0 to 1.
        """
        rows = np.concatenate([self.boxes, self.scores[:, None]], axis=1)
        detections = ImageDetections(rows, self.classes, self.masks)
        return draw_detections(image_bgr, detections, self.class_names, threshold)

    def _object(self, row: int) -> dict[str, Any]:
        x1, y1, x2, y2 = (float(value) for value in self.boxes[row])
        index = int(self.classes[row])
        entry: dict[str, Any] = {
            "category_id": index if self.category_ids is None else self.category_ids[index],
            "category": self.class_names[index],
            "class_index": index,
            "bbox": [round(value, 2) for value in (x1, y1, x2 - x1 + 1, y2 - y1 + 1)],
            "score": round(float(self.scores[row]), 6),
        }
        if self.masks is not None:
            entry["segmentation"] = segmentation(self.masks[row], self.height, self.width)
        return entry


def best_first(
    detections: ImageDetections, class_names: tuple[str, ...], threshold: float, **about: Any
) -> Prediction:
    """A prediction of detections that are ordered by class; ties keep that order.

    Args:
        detections: the detections of an image.
        class_names: index 0 is the background.
        threshold: objects below this score are left out.
        about: name, width, height, path and frame of the image, category ids of the classes.
    """
    order = np.argsort(-detections.rows[:, 4], kind="stable")
    order = order[detections.rows[order, 4] >= threshold]
    return Prediction(
        boxes=detections.rows[order, :4],
        scores=detections.rows[order, 4],
        classes=detections.classes[order],
        class_names=class_names,
        masks=None if detections.masks is None else [detections.masks[row] for row in order],
        **about,
    )
