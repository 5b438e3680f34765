"""Two networks of one configuration on the same images: accuracy and speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sniper.data import Record
from sniper.data.classes import MatchedSet
from sniper.data.detections import DetectionTable, join_blocks
from sniper.data.one_class import match_detected
from sniper.evaluation import protocol_of
from sniper.models.model import AnyModel
from sniper.progress import silent
from sniper.runs.datasets import open_dataset
from sniper.runs.load_model import make_detector
from sniper.runs.plan import TestPlan

FP32, QUANTISED = "fp32", "INT8"


@dataclass(frozen=True)
class Comparison:
    """Both networks on the same images, in turn.

    Attributes:
        images: how many.
        numbers: `fp32` and `INT8` -> name -> accuracy as a fraction of 1; empty for sets without
            annotations.
        forward_ms: `fp32` and `INT8` -> time of the network per image.
        total_ms: the same of everything, reading and merging included.
    """

    images: int
    numbers: Mapping[str, Mapping[str, float]]
    forward_ms: Mapping[str, float]
    total_ms: Mapping[str, float]

    def table(self) -> str:
        """Accuracy and speed of both, and what changes."""
        lines = [f"{self.images} images {FP32:>9} {QUANTISED:>9}    change"]
        if self.numbers:
            before, after = (self.numbers[name] for name in (FP32, QUANTISED))
            lines += [
                f"{name:<12} {100 * before[name]:9.2f} {100 * after[name]:9.2f} "
                f"{100 * (after[name] - before[name]):+9.2f}"
                for name in before
            ]
        for what, times in (("network ms", self.forward_ms), ("total ms", self.total_ms)):
            fp32_ms, int8_ms = times[FP32], times[QUANTISED]
            lines.append(f"{what:<12} {fp32_ms:9.1f} {int8_ms:9.1f} {fp32_ms / int8_ms:8.2f}x")
        return "\n".join(lines)


def compare(plan: TestPlan, models: Mapping[str, AnyModel], count: int) -> Comparison:
    """Detects with several models on the same images of the test set, block by block in turn.

    Args:
        plan: how to detect, and on which set.
        models: by name.
        count: images; fewer if the set has fewer.

    Raises:
        DataError: the set has classes that a model does not have.
    """
    dataset = open_dataset(plan.source, plan.image_set)
    dataset = replace(dataset, records=tuple(spread(dataset.records, count)))
    matched = {
        name: match_detected(dataset, model.classes, class_agnostic=plan.class_agnostic)
        for name, model in models.items()
    }
    detectors = {name: make_detector(plan, model) for name, model in models.items()}
    records = dataset.records
    blocks = next(iter(detectors.values())).blocks(records, most_images=16)
    for detector in detectors.values():
        # Not timed: weights are packed in the first pass.
        detector.detect(records[:1], on_step=silent)
        detector.take_stats()
    tables: dict[str, list[DetectionTable]] = {name: [] for name in detectors}
    # In turn, so that what else the machine does meets both alike.
    for block in blocks:
        for name, detector in detectors.items():
            records_of_block = [records[index] for index in block]
            tables[name].append(detector.detect(records_of_block, on_step=silent))
    stats = {name: detector.take_stats() for name, detector in detectors.items()}
    numbers = {
        name: _numbers(matched[name], join_blocks(parts, blocks)) for name, parts in tables.items()
    }
    return Comparison(
        len(records),
        numbers if all(numbers.values()) else {},
        {name: 1000 * s.seconds["forward"] / s.images for name, s in stats.items()},
        {name: 1000 * s.total_s / s.images for name, s in stats.items()},
    )


def _numbers(matched: MatchedSet, table: DetectionTable) -> dict[str, float]:
    """The main numbers of an evaluation; empty without annotations."""
    protocol = protocol_of(matched.dataset)
    table, _ = matched.detections(table)
    report = protocol.evaluate(matched.dataset, table)
    return {} if report is None else {name: getattr(report, name) for name in protocol.headline}


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """`count` records, evenly spread; all if there are fewer."""
    count = min(count, len(records))
    return [records[index * len(records) // count] for index in range(count)]
