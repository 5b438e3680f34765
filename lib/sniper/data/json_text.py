"""Opening a JSON file as text: in any encoding that JSON has, packed or not."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import IO

from sniper.errors import DataError

_GZIP_START = b"\x1f\x8b"
# Annotations shrink to a fifth or a tenth; a thousandth is the most that gzip can do.
_MOST_RATIO = 100
_ALWAYS_BYTES = 1 << 30
_PART_BYTES = 1 << 20


def open_json(path: str | Path) -> IO[str]:
    """A text file in any encoding of JSON (UTF-8, UTF-16, UTF-32, with or without a byte order
    mark), gzip or not.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read, or is no whole gzip file.
        DataError: unpacked it is far larger than annotations are.
    """
    stream, encoding = open_json_bytes(path)
    return io.TextIOWrapper(stream, encoding)


def open_json_bytes(path: str | Path) -> tuple[IO[bytes], str]:
    """The same file as bytes, and the name of their encoding.

    Raises:
        OSError, EOFError, zlib.error, DataError: as `open_json`.
    """
    stream: IO[bytes] = open(path, "rb")
    try:
        packed = stream.read(len(_GZIP_START)) == _GZIP_START
        stream.seek(0)
        if packed:
            with stream:
                stream = io.BytesIO(_unpacked(stream, path))
        encoding = json.detect_encoding(stream.read(4))
        stream.seek(0)
        return stream, "utf-8-sig" if encoding == "utf-8" else encoding
    except BaseException:
        stream.close()
        raise


def _unpacked(stream: IO[bytes], path: str | Path) -> bytes:
    """The content of a gzip file, unless a few bytes stand for more than the memory holds."""
    packed = os.fstat(stream.fileno()).st_size
    limit = max(_ALWAYS_BYTES, _MOST_RATIO * packed)
    content = bytearray()
    with gzip.open(stream, "rb") as source:
        while part := source.read(_PART_BYTES):
            content += part
            if len(content) > limit:
                raise DataError(
                    "the packed annotation file holds far more than it should",
                    where=path,
                    got=f"more than {limit} bytes out of {packed}",
                    expected=f"at most {_MOST_RATIO} times its size, or {_ALWAYS_BYTES} bytes",
                    fix=f"unpack it (gunzip -k {path}) and name the .json if it is right: what is "
                    "not packed has no limit",
                )
    return bytes(content)
