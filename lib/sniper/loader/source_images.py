"""Images of a source, decoded in threads ahead of whoever uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

import numpy as np

from sniper.data.sources import Source, SourceImage
from sniper.errors import DataError, TrainingError
from sniper.loader.threads import DaemonThreads


def read_ahead(
    source: Source,
    *,
    num_threads: int = 2,
    ahead: int = 8,
    max_bytes: int = 256 << 20,
    timeout_s: float = 120.0,
) -> Generator[tuple[SourceImage, np.ndarray], None, None]:
    """The images of a source in order, with their pixels (H, W, 3) uint8 BGR.

    Args:
        source: what is read; images that it leaves out (`Source.skipped`) do not appear.
        num_threads: threads that decode; 0 decodes when asked.
        ahead: most images that wait decoded, and never fewer than one for each thread.
        max_bytes: fewer wait where they are so large that they would need more.
        timeout_s: waiting for one image fails after so long.

    Raises:
        DataError: an image cannot be read and the source leaves none out.
        TrainingError: an image took longer than the timeout.
    """
    if num_threads < 1:
        for image in source:
            yield from _unless_refused(source, image, image.read)
        return
    threads = DaemonThreads(num_threads, "sniper-source")
    waiting: deque[tuple[SourceImage, Future[np.ndarray]]] = deque()
    largest = 0  # bytes; unknown before the first image

    def first() -> Iterator[tuple[SourceImage, np.ndarray]]:
        image, future = waiting.popleft()
        return _unless_refused(source, image, lambda: _result(image, future, timeout_s))

    try:
        for image in source:
            waiting.append((image, threads.submit(image.read)))
            room = min(ahead, max_bytes // largest) if largest else num_threads
            while len(waiting) > max(room, num_threads):
                for image_with_pixels in first():
                    largest = max(largest, image_with_pixels[1].nbytes)
                    yield image_with_pixels
        while waiting:
            yield from first()
    finally:
        threads.close()


def _unless_refused(
    source: Source, image: SourceImage, read: Callable[[], np.ndarray]
) -> Iterator[tuple[SourceImage, np.ndarray]]:
    try:
        pixels = read()
    except DataError as error:
        source.refuse(image.name, error)
        return
    yield image, pixels


def _result(image: SourceImage, future: Future[np.ndarray], timeout_s: float) -> np.ndarray:
    try:
        return future.result(timeout_s)
    except FutureTimeout as error:
        raise TrainingError(
            f"an image was not read within {timeout_s:g} s",
            where=image.path,
            fix="check that the disk with the images answers",
        ) from error
