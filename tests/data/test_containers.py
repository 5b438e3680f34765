"""What is a video by its content; still pictures in videos."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sniper.data.video import read_frames
from sniper.errors import DataError

LISTS = {
    "hls": b"#EXTM3U\n#EXTINF:1,\n/other.ts\n",
    "hls with a comment of another encoding": b"#EXTM3U\n#\xe9\xe8\n/other.ts\n",
    "hls with control characters": b"#EXTM3U\n#\x01\n/other.ts\n\0\0",
    "hls behind a mark": b"\xef\xbb\xbf#EXTM3U\n/other.ts\n",
    "hls behind a tag": b"ID3\4\0\0\0\0\0\0#EXTM3U\n/other.ts\n",
    "hls with a long word": ("#EXTM3U\n#" + "\u00e9" * 300 + "\n/other.ts\n").encode(),
    "concat": b"ffconcat version 1.0\n#\x01\xe9\nfile other.ts\n",
    "dash": b'<?xml version="1.0"?><!-- \xe9 --><MPD profiles="dash:profile"></MPD>',
    "dash in an avi": b"RIFF\1\1\1\1AVI <MPD></MPD>",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\n",
    "text of G": b"G\n" * 40,
    "empty": b"",
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_other_files_is_no_video(tmp_path, kind):
    path = tmp_path / "film.mp4"
    path.write_bytes(LISTS[kind])
    with pytest.raises(DataError, match="no video"):
        next(read_frames(path))


@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        (".avi", "MJPG"),
        (".mp4", "mp4v"),
        (".mkv", "mp4v"),
        (".m2ts", "mpg2"),
        (".mpg", "mpg1"),
        (".webm", "VP80"),
        (".wmv", "WMV2"),
        (".flv", "FLV1"),
        (".ogv", "THEO"),
        (".3gp", "mp4v"),
    ],
)
@pytest.mark.parametrize("still", [(0, 40), (40, 60)])
def test_still_pictures_of_every_container_are_read_to_the_end(tmp_path, ending, codec, still):
    path = tmp_path / f"a{ending}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 25, (160, 120))
    if not writer.isOpened():
        pytest.skip(f"OpenCV cannot write {codec} into {ending} here")
    noise = np.random.default_rng(1).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (640, 320))
    shift = 0
    for frame in range(60):
        shift += 0 if still[0] <= frame < still[1] else 3
        writer.write(picture[shift % 100 :, shift % 300 :][:120, :160].copy())
    writer.release()
    assert sum(1 for _ in read_frames(path)) == 60
