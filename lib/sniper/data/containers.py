"""Which files are videos, by their content: lists of other files are none."""

from __future__ import annotations

from pathlib import Path

from sniper.errors import DataError

_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV",
    b"OggS",
    b"0&\xb2u",  # ASF: WMV
    b"\0\0\1",  # MPEG program and elementary streams
    b"\0\0\0\1",  # bare H.264 and H.265
)
_MP4_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof")
)
_AVIS = (b"AVI ", b"AVIX", b"AVI\x19", b"AMV ")
# FFmpeg finds some lists anywhere in the first bytes.
_LISTS = (b"#extm3u", b"ffconcat", b"<mpd", b"compositionplaylist", b"smoothstreamingmedia")
_LIST_WITHIN = 4096
# Transport streams repeat a sign at the length of a packet: bare, with a time, with a checksum.
_SYNC, _PACKETS, _REPEATS = 0x47, (188, 192, 204), 3


def refuse_playlist(path: str | Path) -> None:
    """Refuses files that make FFmpeg open others: HLS, DASH, ffconcat, SDP and their like.

    FFmpeg goes by the content, whatever the ending says, and so do we.

    Raises:
        DataError: the file is none of the usual video containers, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_LIST_WITHIN)
    except OSError as error:
        raise DataError("a video cannot be read", where=path, got=error) from error
    lower = head.lower()
    if _is_container(head) and not any(sign in lower for sign in _LISTS):
        return
    raise DataError(
        "a file is no video, but perhaps a text that may name others",
        where=path,
        got=f"a file that starts with {head[:24]!r}",
        expected="MP4, MOV, AVI, MKV, WebM, MPEG, WMV, FLV or OGV by its content",
        fix="name the video files themselves; convert others: ffmpeg -i INPUT OUTPUT.mp4",
    )


def _is_container(head: bytes) -> bool:
    if head.startswith(_STARTS) or head[4:8] in _MP4_BOXES:
        return True
    return (head[:4] == b"RIFF" and head[8:12] in _AVIS) or _is_transport_stream(head)


def _is_transport_stream(head: bytes) -> bool:
    """Whether packets repeat; a recording may begin within one."""
    for length in _PACKETS:
        for start in range(min(length, len(head))):
            signs = head[start::length][:_REPEATS]
            if len(signs) == _REPEATS and set(signs) == {_SYNC}:
                return True
    return False
