"""A small development kit of ILSVRC DET on disk, with the MATLAB file of its classes."""

from __future__ import annotations

import struct
import zlib

import numpy as np

# number, WordNet id, name, numbers below: 3 and 4 are no classes of the challenge.
SYNSETS = [
    (1, "n01", "ant", []),
    (2, "n02", "dog", [201, 202]),
    (201, "n03", "terrier", [203]),
    (202, "n04", "pug", []),
    (203, "n05", "small terrier", []),
]


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def small(kind, data):
    return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")


def matrix(flags, shape, name, *parts):
    head = element(6, struct.pack("<II", flags, 0)) + element(5, struct.pack("<2i", *shape))
    return element(14, head + element(1, name) + b"".join(parts))


def value(data):
    if isinstance(data, str):
        return matrix(4, (1, len(data)), b"", element(16, data.encode()))
    numbers = np.asarray(data, np.uint16).reshape(1, -1)
    # Up to four bytes of content stand in the place of the size.
    parts = (small if numbers.nbytes <= 4 else element)(4, numbers.tobytes())
    return matrix(6, numbers.shape if numbers.size else (0, 0), b"", parts)


def matlab_file(variables, *, compressed=True):
    """variables: name -> list of dicts with texts and lists of numbers"""
    content = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    for name, entries in variables.items():
        keys = list(entries[0])
        names = element(1, b"".join(key.encode().ljust(32, b"\0") for key in keys))
        cells = [value(entry[key]) for entry in entries for key in keys]
        shape = (1, len(entries))
        data = matrix(2, shape, name.encode(), small(5, struct.pack("<i", 32)), names, *cells)
        content += element_15(data) if compressed else data
    return content


def element_15(data):
    packed = zlib.compress(data)
    return struct.pack("<II", 15, len(packed)) + packed  # not padded


def annotation(objects, size=(200, 100)):
    """objects: (name, x1, y1, x2, y2)"""
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax>"
        f"<ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    size_xml = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{size_xml}{boxes}</annotation>"


def write_kit(root, images, *, lists=None, blacklist=()):
    """images: name -> objects, in the order of val.txt; objects None: no annotation file."""
    data = root / "data"
    (data / "det_lists").mkdir(parents=True)
    folder = root.parent / "ILSVRC2013_DET_val_bbox"
    folder.mkdir(exist_ok=True)
    entries = [
        {"ILSVRC2014_DET_ID": [number], "WNID": wnid, "name": name, "children": below}
        for number, wnid, name, below in SYNSETS
    ]
    (data / "meta_det.mat").write_bytes(matlab_file({"synsets": entries}))
    lines = [f"{name} {number}\n" for number, name in enumerate(images, start=1)]
    (data / "det_lists" / "val.txt").write_text("".join(lines))
    for name, keys in (lists or {}).items():
        lines = [f"{key} {number}\n" for number, key in enumerate(keys, start=1)]
        (data / "det_lists" / f"{name}.txt").write_text("".join(lines))
    path = data / "ILSVRC2014_det_validation_blacklist.txt"
    path.write_text("".join(f"{image} {wnid}\n" for image, wnid in blacklist))
    for name, objects in images.items():
        if objects is not None:
            (folder / f"{name}.xml").write_text(annotation(objects))
    return root
