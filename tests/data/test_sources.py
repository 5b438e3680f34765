"""Where images to detect on come from."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from sniper.data import sources, video
from sniper.data.sources import open_source
from sniper.errors import ConfigError, DataError
from sniper.loader.source_images import read_ahead


def pixels_of(number: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.full((height, width, 3), number, np.uint8)


def write(path, number: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels_of(number))
    return str(path)


def write_video(path, frames: int, fps: float = 10.0, size=(64, 48)) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no mp4v")
    for number in range(frames):
        writer.write(pixels_of(20 * number, size[1], size[0]))
    writer.release()
    return str(path)


def names(source) -> list[str]:
    return [image.name for image in source]


@pytest.fixture
def folder(tmp_path):
    """a.png, .hidden.png, notes.txt, b/a.JPG, b/c/d.png"""
    write(tmp_path / "a.png", 1)
    write(tmp_path / ".hidden.png", 9)
    write(tmp_path / "b" / "a.JPG", 2)
    write(tmp_path / "b" / "c" / "d.png", 3)
    (tmp_path / "notes.text").write_text("no image")
    return tmp_path


def test_a_file_is_one_image_under_its_own_name(folder):
    (image,) = open_source(folder / "b" / "a.JPG")
    assert image.name == "a.JPG" and image.path == folder / "b" / "a.JPG"
    assert image.pixels is None and image.frame is None
    assert image.read().shape == (12, 16, 3)


def test_a_folder_gives_its_images_and_deeper_ones_when_asked(folder):
    assert names(open_source(folder)) == ["a.png"]
    source = open_source(folder, recursive=True)
    assert names(source) == ["a.png", "b/a.JPG", "b/c/d.png"]
    assert len(source) == source.expected == 3
    assert names(source) == names(source)  # again


def test_patterns(folder):
    assert names(open_source(str(folder / "*.png"))) == ["a.png"]
    assert names(open_source(str(folder / "**" / "*.*"))) == ["a.png", "b/a.JPG", "b/c/d.png"]
    with pytest.raises(DataError, match="no image or video has such a name"):
        open_source(str(folder / "*.gif"))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    write(tmp_path / "a[1].png")
    write(tmp_path / "a1.png")
    assert names(open_source(tmp_path / "a[1].png")) == ["a[1].png"]


def test_a_text_list_is_relative_to_its_folder(folder, monkeypatch):
    monkeypatch.chdir("/")
    (folder / "lists").mkdir()
    text = folder / "lists" / "mine.txt"
    text.write_text(f"../b/a.JPG\n\n  ../a.png  \n{folder}/b/c/d.png\n", encoding="utf-8-sig")
    source = open_source(text)
    assert names(source) == ["b/a.JPG", "a.png", "b/c/d.png"]
    assert [image.read()[0, 0, 0] for image in source] == [2, 1, 3]


def test_a_text_list_may_be_written_on_windows(folder):
    (folder / "mine.txt").write_text("a.png\r\nb\\a.JPG\r\n", "utf-16")
    parts = open_source(folder / "mine.txt").parts
    assert [part.name for part in parts] == ["a.png", "b/a.JPG"]


def test_names_tell_equal_names_in_different_folders_apart(folder):
    write(folder / "x" / "a.png")
    given = [folder / "x" / "a.png", str(folder / "a.png"), folder / "b"]
    assert names(open_source(given)) == ["x/a.png", "a.png", "b/a.JPG"]


def test_arrays_and_lists_of_anything(folder):
    first, second = pixels_of(5), pixels_of(6)
    (image,) = open_source(first)
    assert image.pixels is first and image.path is None
    mixed = open_source([first, folder / "a.png", [second]])
    assert names(mixed) == ["image_000000", "a.png", "image_000001"]
    assert [image.read()[0, 0, 0] for image in mixed] == [5, 1, 6]
    assert names(open_source([])) == []


def test_nothing_is_decoded_before_it_is_asked_for(folder, monkeypatch):
    read = []
    monkeypatch.setattr(sources, "read_image", lambda path, **_: read.append(path.name))
    images = list(open_source(folder, recursive=True))
    assert read == []
    images[1].read()
    assert read == ["a.JPG"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_wrong_arrays_are_refused(array):
    with pytest.raises(ConfigError, match="an array is no image"):
        open_source(array)


def test_wrong_types_and_options_are_refused(folder):
    for source in (3, None, {"a": 1}, [folder, 4]):
        with pytest.raises(ConfigError, match="nothing to detect on"):
            open_source(source)
    for options in ({"every": 0}, {"on_error": "ignore"}):
        with pytest.raises(ConfigError, match="cannot be opened like this"):
            open_source(folder, **options)


def test_what_is_missing_or_empty_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for name, text in [("gone.jpg", "no such"), ("empty", "no images"), ("empty.txt", "is empty")]:
        with pytest.raises(DataError, match=text):
            open_source(tmp_path / name)
        skipping = open_source(tmp_path / name, on_error="skip")
        assert names(skipping) == [] and text in skipping.skipped[0].reason


def broken_folder(tmp_path):
    """Images 0 ... 5, of which 2 is cut off and 4 is no image; and a missing one in a list."""
    for number in range(6):
        write(tmp_path / f"{number}.jpg", 10 * number)
    whole = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "4.jpg").write_text("no image")
    text = tmp_path / "all.txt"
    text.write_text("\n".join(f"{number}.jpg" for number in range(7)))
    return text


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_broken_files_are_left_out_and_listed(tmp_path, threads):
    source = open_source(broken_folder(tmp_path), on_error="skip")
    read = list(read_ahead(source, num_threads=threads, ahead=2))
    assert [image.name for image, _ in read] == ["0.jpg", "1.jpg", "3.jpg", "5.jpg"]
    assert [pixels[0, 0, 0] for _, pixels in read] == [0, 10, 30, 50]
    assert [skipped.name for skipped in source.skipped] == ["2.jpg", "4.jpg", "6.jpg"]
    assert "cut off" in source.skipped[0].reason


@pytest.mark.parametrize("threads", [0, 2])
def test_a_broken_file_ends_a_strict_run_where_it_stands(tmp_path, threads):
    images = read_ahead(open_source(broken_folder(tmp_path)), num_threads=threads)
    assert [next(images)[0].name for _ in range(2)] == ["0.jpg", "1.jpg"]
    with pytest.raises(DataError, match="cut off"):
        next(images)


@pytest.mark.parametrize(
    ("options", "waiting"),
    [({"ahead": 3}, 3), ({"ahead": 50, "max_bytes": 5 * 576}, 5), ({"max_bytes": 1}, 2)],
)
def test_no_more_images_than_there_is_room_for_wait_decoded(options, waiting):
    begun = []

    class Counted:
        def __init__(self, number):
            self.name, self.number = str(number), number

        def read(self):
            return pixels_of(self.number)  # 576 bytes

    class Endless:
        def __iter__(self):
            for number in range(1000):
                begun.append(number)
                yield Counted(number)

    images = read_ahead(Endless(), num_threads=2, **options)
    for number in range(9):
        assert next(images)[1][0, 0, 0] == number
        assert len(begun) == number + 1 + (waiting if number else 2)
    images.close()


def test_frames_of_a_video_come_with_number_and_time(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 7, fps=10)
    images = list(open_source(path))
    assert [image.name for image in images] == [f"clip.mp4#{n:06d}" for n in range(7)]
    assert [image.frame.index for image in images] == list(range(7))
    np.testing.assert_allclose([i.frame.time_s for i in images], np.arange(7) / 10, atol=1e-3)
    assert all(image.frame.fps == 10 for image in images)
    assert all(image.pixels.shape == (48, 64, 3) for image in images)
    levels = [image.pixels.mean() for image in images]
    np.testing.assert_allclose(levels, 20 * np.arange(7), atol=6)


def test_the_name_of_a_video_is_no_protocol(tmp_path, monkeypatch):
    os.rename(write_video(tmp_path / "a.mp4", 3), tmp_path / "concat:a.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source("concat:a.mp4"))) == 3


def test_every_nth_frame(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 8)
    source = open_source(path, every=3)
    assert [image.frame.index for image in source] == [0, 3, 6]
    assert source.expected == 3
    with pytest.raises(TypeError):
        len(source)


def test_a_video_among_images(tmp_path):
    write(tmp_path / "a.png")
    write_video(tmp_path / "v.avi.mp4", 2)
    source = open_source([tmp_path / "a.png", tmp_path / "v.avi.mp4"])
    assert names(source) == ["a.png", "v.avi.mp4#000000", "v.avi.mp4#000001"]
    assert source.expected == 3


def test_a_broken_video_is_said_or_left_out(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match="a file is no video"):
        list(open_source(tmp_path / "bad.mp4"))
    source = open_source([tmp_path / "bad.mp4", tmp_path / "a.png"], on_error="skip")
    assert names(source) == ["a.png"]
    assert source.skipped[0].name == "bad.mp4"


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD><BaseURL>other.mp4</BaseURL></MPD>',
    "concat": "ffconcat version 1.0\nfile other.mp4\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_playlists_open_no_other_file(tmp_path, kind, encoding):
    (tmp_path / "film.mp4").write_bytes(PLAYLISTS[kind].encode(encoding))
    write_video(tmp_path / "other.mp4", 3)
    with pytest.raises(DataError, match="a text that may name others"):
        list(open_source(tmp_path / "film.mp4"))


def test_still_pictures_in_a_video_are_no_change_of_size(tmp_path):
    path = tmp_path / "still.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for value in [10] * 5 + [200] * 150 + [30]:
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    for every in (1, 7):
        frames = [frame.index for frame, _ in video.read_frames(path, every)]
        assert frames == list(range(0, 156, every))


def test_frames_that_are_only_repeated_end_a_video(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", 6)
    frames = [pixels for _, pixels in video.read_frames(path)]
    repeats = video._Repeats(path, 2)
    monkeypatch.setattr(repeats, "_is_stale", lambda frame, pixels: True)
    given = []
    with pytest.raises(DataError, match="the size of the frames changes"):
        for index, place in enumerate([0, 1, 1, 1]):
            given += repeats.checked(video.Frame(2 * index, 0.0, 10.0), frames[place], None)
    assert [frame.index for frame, _ in given] == [0, 2]


def test_a_video_that_starts_late_is_not_cut_off(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", 10)
    monkeypatch.setattr(video, "_info", lambda capture: video.VideoInfo(64, 48, 10.0, 24))
    monkeypatch.setattr(video, "_begin", lambda capture: 14.0)
    assert len(list(video.read_frames(path))) == 10


def test_a_video_that_ends_early_is_said(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", 4)
    info = video.video_info(path)
    assert (info.width, info.height, info.fps, info.num_frames) == (64, 48, 10.0, 4)
    monkeypatch.setattr(video, "_info", lambda capture: video.VideoInfo(64, 48, 10.0, 9))
    source = open_source(path, on_error="skip")
    assert len(list(source)) == 4
    assert "cut off or damaged" in source.skipped[0].reason
    with pytest.raises(DataError, match="cut off or damaged"):
        list(video.read_frames(path))
