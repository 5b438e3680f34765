"""Boxes with labels on images, and files of the results."""

from __future__ import annotations

import colorsys
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sniper.data.detections import ImageDetections, check_threshold
from sniper.data.rle import decode_mask
from sniper.errors import ConfigError, DataError

BACKGROUND_NAME = "__background__"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".pdf")

_TOP_MARGIN_PX = 15  # a box nearer to the top has its label inside (2018 behaviour)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PDF_DPI = 80  # 2018 behaviour
_MASK_OPACITY = 0.45


@dataclass(frozen=True)
class _Box:
    """One object to draw: corners in image px, label, colour (BGR), drawing order, mask."""

    corners: tuple[float, float, float, float]
    label: str
    colour: tuple[int, int, int]
    order: float
    mask: bytes | None = None


def class_colour(index: int) -> tuple[int, int, int]:
    """The BGR colour of a class index >= 0: always the same, and distinct for hundreds of classes.

    Neighbouring indices get hues 137 degrees apart, and every few turns another brightness.
    """
    hue = (index * 0.6180339887) % 1.0
    saturation = (0.95, 0.65, 0.8)[index // 8 % 3]
    value = (1.0, 0.8, 0.65)[index // 24 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_detections(
    image_bgr: np.ndarray,
    detections: ImageDetections,
    class_names: Sequence[str],
    threshold: float = 0.5,
) -> np.ndarray:
    """Draws detections with `name score` labels on a copy of an image (2018 behaviour).

    Masks lie translucent under all boxes and labels, with an outline.

    Args:
        image_bgr: (H, W, 3) uint8.
        detections: rows, classes and masks, the latter of the image's size. Boxes are cut at the
            border; those outside the image or with numbers that are not finite are left out, and
            so are those of `__background__`.
        class_names: the name of every class index.
        threshold: detections below this score are left out.

    Returns:
        (H, W, 3) uint8 with the highest scores on top; equal to the image when nothing is drawn.

    Raises:
        DataError: the image or the detections have a wrong shape, the counts differ, or a class has
            no name.
        ConfigError: the threshold is not from 0 to 1.
    """
    _check_image(image_bgr)
    check_threshold(threshold)
    rows = _rows(detections.rows)
    masks = [None] * len(rows) if detections.masks is None else detections.masks
    if not len(rows) == len(detections.classes) == len(masks):
        raise DataError(
            "detections, their classes and their masks differ in number",
            got=f"{len(rows)}, {len(detections.classes)}, {len(masks)}",
        )
    boxes = []
    for (*corners, score), index, mask in zip(rows, detections.classes.tolist(), masks):
        name = _name_of(index, class_names)
        x1, y1, x2, y2 = corners
        if np.isfinite([*corners, score]).all() and name != BACKGROUND_NAME and score >= threshold:
            label = f"{_printable(name, index)} {score:.1f}"
            boxes.append(_Box((x1, y1, x2, y2), label, class_colour(index), score, mask))
    return _draw(image_bgr, boxes)


def save_image(path: str | Path, image_bgr: np.ndarray) -> None:
    """Writes an image in the format of the path's ending: .jpg, .jpeg, .png or .pdf.

    Args:
        path: the file; its folder is made when missing.
        image_bgr: (H, W, 3) uint8.

    Raises:
        ConfigError: another ending.
        DataError: not an image, or the file cannot be written.
    """
    path = Path(path)
    _check_image(image_bgr)
    ending = path.suffix.lower()
    if ending not in IMAGE_ENDINGS:
        raise ConfigError(
            "images cannot be saved in this format",
            where=path,
            got=ending or "no ending",
            expected=", ".join(IMAGE_ENDINGS),
        )
    content = _pdf(image_bgr) if ending == ".pdf" else _encoded(path, ending, image_bgr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise DataError(
            "an image cannot be written",
            where=path,
            got=error,
            fix="check that the folder is writable and the disk is not full",
        ) from error


def _check_image(image: np.ndarray) -> None:
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if not good or image.shape[2] != 3 or image.size == 0:
        got = f"{getattr(image, 'dtype', type(image))} {getattr(image, 'shape', '')}"
        raise DataError("this is not a colour image", got=got, expected="uint8 (H, W, 3), BGR")


def _rows(array: np.ndarray) -> list[list[float]]:
    """The rows of an (n, 5) array; an empty array of any shape has none."""
    array = np.asarray(array, dtype=np.float64)
    if array.size == 0:
        return []
    if array.ndim != 2 or array.shape[1] != 5:
        raise DataError("the detections have a wrong shape", got=array.shape, expected="(n, 5)")
    return array.tolist()


def _name_of(index: int, class_names: Sequence[str]) -> str:
    if not 0 <= index < len(class_names):
        raise DataError(
            "a box has a class without a name", got=index, expected=f"0 .. {len(class_names)}-1"
        )
    return class_names[index]


def _printable(name: str, index: int) -> str:
    """A name in ASCII, since OpenCV's fonts have nothing else: accents go, the rest becomes `?`."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    text = "".join(c if " " <= c <= "~" else "?" for c in plain)
    return text if text.strip("? ") else f"class {index}"


def _draw(image: np.ndarray, boxes: list[_Box]) -> np.ndarray:
    drawn = np.ascontiguousarray(image).copy()
    height, width = image.shape[:2]
    thickness = max(1, round(max(height, width) / 320))
    boxes = sorted(boxes, key=lambda b: b.order)
    for box in boxes:
        if box.mask is not None:
            _draw_mask(drawn, decode_mask(box.mask, height, width), box.colour, thickness)
    for box in boxes:
        x1, y1, x2, y2 = box.corners
        if x2 < 0 or y2 < 0 or x1 > width - 1 or y1 > height - 1 or x2 < x1 or y2 < y1:
            continue
        left, right = (round(min(max(x, 0), width - 1)) for x in (x1, x2))
        top, bottom = (round(min(max(y, 0), height - 1)) for y in (y1, y2))
        cv2.rectangle(drawn, (left, top), (right, bottom), box.colour, thickness)
        _draw_label(drawn, box.label, left, top, box.colour)
    return drawn


def _draw_mask(
    image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], thickness: int
) -> None:
    """Tints the pixels of a mask (H, W) and draws its outline."""
    inside = mask.astype(bool)
    tint = image[inside] * (1 - _MASK_OPACITY) + np.array(colour) * _MASK_OPACITY
    image[inside] = np.round(tint).astype(np.uint8)
    outline, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outline, -1, colour, max(1, thickness // 2))


def _draw_label(
    image: np.ndarray, label: str, left: int, top: int, colour: tuple[int, int, int]
) -> None:
    """Writes a label on a filled ground above (left, top), or below it near the image's top."""
    height, width = image.shape[:2]
    scale = min(max(max(height, width) / 1400, 0.4), 2.0)
    stroke = max(1, round(scale * 1.6))
    (text_width, text_height), descent = cv2.getTextSize(label, _FONT, scale, stroke)
    box_height = text_height + descent + 2
    y = top if top < max(_TOP_MARGIN_PX, box_height) else top - box_height
    x = max(0, min(left, width - text_width - 4))
    cv2.rectangle(image, (x, y), (x + text_width + 3, y + box_height), colour, cv2.FILLED)
    blue, green, red = colour
    ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else (255, 255, 255)
    where = (x + 2, y + text_height + 2)
    cv2.putText(image, label, where, _FONT, scale, ink, stroke, cv2.LINE_AA)


def _encoded(path: Path, ending: str, image: np.ndarray) -> bytes:
    options = [] if ending == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    good, data = cv2.imencode(ending, image, options)
    if not good:
        raise DataError("OpenCV could not encode an image", where=path, got=image.shape)
    return data.tobytes()


def _pdf(image: np.ndarray) -> bytes:
    """One page with the image at 80 dpi."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "PDF drawings need matplotlib, which is not installed",
            got=error,
            fix="pip install matplotlib, or choose .jpg or .png",
        ) from error
    height, width = image.shape[:2]
    figure = Figure(figsize=(width / _PDF_DPI, height / _PDF_DPI), dpi=_PDF_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image[:, :, ::-1], interpolation="none")
    axes.set_axis_off()
    content = io.BytesIO()
    figure.savefig(content, format="pdf", dpi=_PDF_DPI)
    return content.getvalue()
