"""`sniper check-data` and `sniper suggest-scales` as they are called."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence

from bench.growth_fit import GrowthJob
from bench.growth_sets import CocoSet


def check_objects(objects: int) -> Callable[[], object]:
    """One image of 3,000 px; most chips have more boxes than fit."""
    return check_data(CocoSet(1, objects, 3000, max_gt=1))


def check_area(area: int) -> Callable[[], object]:
    """An image of so many thousand px, with an object per 5,000 of them."""
    return check_data(CocoSet(1, area // 5, round((1000 * area) ** 0.5)))


def check_images(images: int) -> Callable[[], object]:
    return check_data(CocoSet(images, 8, 256))


def suggest_objects(objects: int) -> Callable[[], object]:
    """One image of 3,000 px: the annotations are large, the image does not count."""
    return suggest_scales(CocoSet(1, objects, 3000))


def suggest_area(area: int) -> Callable[[], object]:
    return suggest_scales(CocoSet(1, area // 5, round((1000 * area) ** 0.5)))


def suggest_images(images: int) -> Callable[[], object]:
    return suggest_scales(CocoSet(images, 8, 256))


def check_data(data: CocoSet) -> Callable[[], object]:
    from sniper.tools.check_data import main

    return command(main, ["--cfg", str(data.recipe), "--workers", "1"], data)


def suggest_scales(data: CocoSet) -> Callable[[], object]:
    from sniper.tools.suggest_scales import main

    return command(main, ["--cfg", str(data.recipe), "--no-estimate"], data)


def command(
    main: Callable[[Sequence[str]], int], arguments: Sequence[str], data: CocoSet
) -> Callable[[], object]:
    def run() -> CocoSet:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            code = main(arguments)
        if code:
            raise RuntimeError(f"exit code {code}: {shown.getvalue()[-500:]}")
        return data  # its files are there as long as it is

    return run


JOBS = [
    GrowthJob("check-data, objects of an image", "objects", 5_000, check_objects),
    GrowthJob("check-data, size of an image", "thousand px", 12_500, check_area),
    GrowthJob("check-data, images", "images", 500, check_images),
    GrowthJob("suggest-scales, objects of an image", "objects", 5_000, suggest_objects),
    GrowthJob("suggest-scales, size of an image", "thousand px", 12_500, suggest_area),
    GrowthJob("suggest-scales, images", "images", 500, suggest_images),
]
