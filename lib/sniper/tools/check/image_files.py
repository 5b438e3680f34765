"""Opens the images of a set: are they there, complete, and of the size that was promised."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Union

from sniper.data.image import read_image
from sniper.data.image_header import image_size
from sniper.data.jpeg_damage import decoder_messages, jpeg_damage
from sniper.data.picture_notes import DAMAGE, OnNote, PictureNotes, keep_quiet
from sniper.data.problems import Problem, first_lines
from sniper.data.record import Record
from sniper.data.turned import turn_of
from sniper.errors import DataError
from sniper.progress import Progress
from sniper.tools.check.findings import Findings

# Images handed to the threads at a time: an interruption waits for no more.
_BLOCK = 256


def check_images(
    findings: Findings, set_name: str, records: Sequence[Record], *, decode: bool, workers: int
) -> None:
    """Compares the files with the records; missing ones are left to the reader of annotations.

    Args:
        findings: receives the problems.
        set_name: of the records.
        records: the images.
        decode: decode the pixels; else only headers and ends are looked at.
        workers: threads.
    """
    progress = Progress("images checked", len(records))
    notes = PictureNotes()
    odd: list[tuple[str, str, str]] = []

    def keep(kind: str, path: str, text: str) -> None:
        if kind != DAMAGE:  # which is an error here
            odd.append((kind, path, text))

    done = 0
    with ThreadPoolExecutor(workers) as threads:
        for block in _blocks(records):
            results = _results(block, threads, decode, keep)
            while odd:
                notes.tell(*odd.pop(0))
            for record, problem in zip(block, results):
                _judge(findings, set_name, record, problem)
            done += len(block)
            progress.tell(done)


Result = Union[tuple[int, int], str]


def _results(
    block: list[Record], threads: ThreadPoolExecutor, decode: bool, on_note: OnNote
) -> list[Result]:
    """Width and height of each file, or what is wrong with it.

    `on_note` must not write: what is written meanwhile counts as the decoders' words.
    """
    if not decode:
        return list(threads.map(_size_or_problem, block))
    with decoder_messages() as messages:
        results = list(threads.map(partial(_decoded_size_or_problem, on_note=on_note), block))
        if not messages():
            return results
        # Some of these files are damaged: one by one they can be told from each other.
        for place, record in enumerate(block):
            if not isinstance(results[place], str):
                again = _decoded_size_or_problem(record, keep_quiet)
                said = messages()
                results[place] = f"the picture is damaged: {said}" if said else again
    return results


def _blocks(records: Sequence[Record]) -> Iterator[list[Record]]:
    rest = (record for record in records if os.path.isfile(record.image_path))
    while block := list(islice(rest, _BLOCK)):
        yield block


def _size_or_problem(record: Record) -> Result:
    try:
        size = image_size(record.image_path, record.frame)
    except DataError as error:
        return first_lines(error)
    return jpeg_damage(Path(record.image_path).read_bytes()) or size


def _decoded_size_or_problem(record: Record, on_note: OnNote) -> Result:
    try:
        image = read_image(record.image_path, frame=record.frame, on_note=on_note)
    except DataError as error:
        return first_lines(error)
    return jpeg_damage(Path(record.image_path).read_bytes()) or (image.shape[1], image.shape[0])


def _judge(findings: Findings, set_name: str, record: Record, result: Result) -> None:
    label = f"image {record.original_id}, {record.image_path}"
    kind = turn_of(record)
    if kind is not None:
        findings.take(Problem(kind, set_name, 1, [label]))
    if isinstance(result, str):
        findings.add("unreadable_file", set_name, f"{label}: {result}")
    elif result != (record.width, record.height):
        text = f"{label}: {result[0]}x{result[1]} px, annotated {record.width}x{record.height}"
        if result == (record.height, record.width):
            text += " (sides exchanged: was the image turned by its EXIF orientation?)"
        findings.add("size_mismatch", set_name, text)
