"""Test batches: windows of one pyramid level of many images, decoded ahead in threads."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial

import numpy as np

from sniper.data.cut import content_size, write_chip
from sniper.data.image import check_size
from sniper.data.record import Record
from sniper.errors import ConfigError, TrainingError
from sniper.loader.images import ImageCache, ImageSource
from sniper.loader.threads import DaemonThreads, StageClock

# The sides of a batch are multiples of this: few different shapes, few re-allocations.
SIDE_MULTIPLE = 32

Rect = Sequence[float]


@dataclass(frozen=True, eq=False)
class TestBatch:
    """Windows of one tensor size.

    Attributes:
        data: (B, 3, h, w) float32 RGB minus the means, zero padded; h and w multiples of 32.
        im_info: (B, 3) float32: height and width of the content in network px, factor.
        image_index: (B,) int64, index of the record.
        chip_index: (B,) int64, index of the window among those of its image.
        is_padding: (B,) bool: a repetition that only fills the batch.
    """

    __test__ = False  # no test case, in spite of its name

    data: np.ndarray
    im_info: np.ndarray
    image_index: np.ndarray
    chip_index: np.ndarray
    is_padding: np.ndarray


@dataclass(frozen=True)
class _Window:
    image: int
    chip: int
    rect: tuple[float, ...]
    factor: float

    @property
    def tensor_hw(self) -> tuple[int, int]:
        """Height and width in network px, rounded up to whole blocks."""
        x1, y1, x2, y2 = self.rect
        return _round_up((y2 - y1) * self.factor), _round_up((x2 - x1) * self.factor)


class TestLoader:
    """Batches of all windows, large ones first; a batch holds windows of one tensor size only.

    2018 padded every image to the largest of its batch. The padding reaches into the features, so
    the result of an image depended on its neighbours; here it does not.

    Iterate over it, any number of times; use it as a context manager, or call `close`. The order
    of the batches has no meaning for the results: see `image_index`.

    Args:
        records: images; `flipped` is ignored (2018 behaviour).
        crops: per record its windows, image px, end exclusive: `[(0, 0, width, height)]` for the
            whole image, `[]` to leave the image out.
        factors: per record image px -> network px.
        batch_size: most windows of a batch, a multiple of `batch_multiple`.
        batch_multiple: every batch has a multiple of it (the number of devices).
        pixel_means: three means, BGR.
        num_threads: threads that decode images, at least one.
        threads: decode with these, which stay open, instead of own ones.
        prefetch: batches that are made ahead.
        timeout_s: waiting for a batch fails after so long.
        images: where decoded images come from; None reads the files.
        clock: adds up what reading and resizing take.

    Raises:
        ConfigError: a number is out of range, or crops and records do not fit together.
    """

    __test__ = False  # no test case, in spite of its name

    def __init__(
        self,
        records: Sequence[Record],
        crops: Sequence[Sequence[Rect]],
        factors: Sequence[float],
        *,
        batch_size: int,
        batch_multiple: int = 1,
        pixel_means: Sequence[float],
        num_threads: int = 2,
        prefetch: int = 2,
        timeout_s: float = 120.0,
        threads: DaemonThreads | None = None,
        images: ImageSource | None = None,
        clock: StageClock | None = None,
    ) -> None:
        if min(batch_size, num_threads, prefetch, timeout_s) <= 0:
            raise ConfigError(
                "batch size, threads, prefetch and timeout must be positive",
                got=f"{batch_size}, {num_threads}, {prefetch}, {timeout_s}",
            )
        if batch_size % batch_multiple:
            raise ConfigError(
                "the batch must divide evenly among the devices",
                got=f"batch size {batch_size}, {batch_multiple} devices",
            )
        if not len(records) == len(crops) == len(factors):
            raise ConfigError(
                "every image needs a list of windows and a factor",
                got=f"{len(records)} images, {len(crops)} lists, {len(factors)} factors",
            )
        self.records = records
        self.pixel_means = pixel_means
        self.prefetch = prefetch
        self.timeout_s = timeout_s
        self._batches = _batches(_windows(crops, factors), batch_size, batch_multiple)
        self._images = images or ImageCache(max_images=4)
        self._clock = clock or StageClock()
        self._threads = threads or DaemonThreads(num_threads, "sniper-test-loader")
        end = self._threads.close if threads is None else _leave_open
        self._finalizer = weakref.finalize(self, end)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[TestBatch]:
        """Batches in order.

        Raises:
            DataError: an image cannot be read, or has another size than its record says.
            TrainingError: an image took longer than the timeout, or the loader is closed.
        """
        waiting: deque[tuple[TestBatch, list[Future[None]]]] = deque()
        try:
            for windows, is_padding in self._batches:
                waiting.append(self._begin(windows, is_padding))
                if len(waiting) > self.prefetch:
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()

    def close(self) -> None:
        """Ends the threads. Idempotent; batches that were handed out stay valid."""
        self._finalizer()

    def __enter__(self) -> TestLoader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _begin(
        self, windows: Sequence[_Window], is_padding: Sequence[bool]
    ) -> tuple[TestBatch, list[Future[None]]]:
        """An empty batch, and the jobs that fill it."""
        self._check_open()
        height, width = windows[0].tensor_hw
        count = len(windows)
        batch = TestBatch(
            data=np.empty((count, 3, height, width), np.float32),
            im_info=np.zeros((count, 3), np.float32),
            image_index=np.array([window.image for window in windows], np.int64),
            chip_index=np.array([window.chip for window in windows], np.int64),
            is_padding=np.array(is_padding, bool),
        )
        futures = [
            self._threads.submit(partial(self._fill, batch, position, window))
            for position, window in enumerate(windows)
        ]
        return batch, futures

    def _finish(self, batch: TestBatch, futures: Sequence[Future[None]]) -> TestBatch:
        self._check_open()
        for future, image_index in zip(futures, batch.image_index):
            try:
                future.result(self.timeout_s)
            except FutureTimeout as error:
                raise TrainingError(
                    f"an image was not read within {self.timeout_s:g} s",
                    where=self.records[image_index].image_path,
                    fix="check that the disk with the images answers",
                ) from error
        return batch

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise TrainingError("the loader is already closed")

    def _fill(self, batch: TestBatch, position: int, window: _Window) -> None:
        """Writes one window into its batch."""
        record = self.records[window.image]
        with self._clock("read"):
            image = self._images.read(record.image_path, frame=record.frame)
        check_size(image, record)
        with self._clock("resize"):
            write_chip(image, window.rect, window.factor, batch.data[position], self.pixel_means)
        image_height, image_width = image.shape[:2]
        height, width = content_size((image_height, image_width), window.rect, window.factor)
        batch.im_info[position] = height, width, window.factor


def _leave_open() -> None:
    """The threads belong to somebody else."""


def _windows(crops: Sequence[Sequence[Rect]], factors: Sequence[float]) -> list[_Window]:
    """All windows, the largest in network px first; ties in the order of the images."""
    windows = [
        _Window(i, j, tuple(map(float, rect)), float(factor))
        for i, (rects, factor) in enumerate(zip(crops, factors))
        for j, rect in enumerate(rects)
    ]
    # The engine gives smaller shapes the memory of the largest, which should come first for that;
    # and where memory is short, this shows at once.
    return sorted(windows, key=lambda window: -window.tensor_hw[0] * window.tensor_hw[1])


def _batches(
    windows: Sequence[_Window], batch_size: int, multiple: int
) -> list[tuple[list[_Window], list[bool]]]:
    """Batches of windows of one tensor size, with a mark on what only fills them."""
    groups: dict[tuple[int, int], list[_Window]] = {}
    for window in windows:
        groups.setdefault(window.tensor_hw, []).append(window)
    batches = []
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            count = min(batch_size, len(group) - start)
            # Cyclic: one window alone can fill the devices' share.
            places = range(start, start + -(-count // multiple) * multiple)
            batches.append(
                (
                    [group[place % len(group)] for place in places],
                    [place >= len(group) for place in places],
                )
            )
    return batches


def _round_up(side: float) -> int:
    return max(1, int(np.ceil(side / SIDE_MULTIPLE))) * SIDE_MULTIPLE
