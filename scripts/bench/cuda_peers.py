"""PyTorch and torchvision on the GPU, as peers of the CUDA kernels; outputs are compared first.

* torchvision.ops.nms beside hard MultiScaleNMS of one class; boxes one pixel longer, as on the CPU.
* torchvision.ops.batched_nms beside hard MultiScaleNMS of many classes and images. It moves the
  classes apart by adding to the coordinates, which rounds: nearly all kept rows must be the same.
* The steps of torchvision's region proposal network with our decoding (top-k, decode, clip, nms of
  every image, the first 300) beside MultiProposal: 295 boxes of every image equal to 0.05 px.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench import inputs as make
from tests.native import cuda_calls as calls

THRESHOLD, PRE_NMS, POST_NMS, LEAST_EQUAL, TOLERANCE_PX = 0.7, 6000, 300, 295, 0.05
LEAST_SHARE = 0.999


def detections(count: int, classes: int, images: int) -> tuple[np.ndarray, ...]:
    """Rows of MultiScaleNMS (dets, levels, classes, images): `count` a class and image."""
    rng = np.random.default_rng(0)
    if classes == images == 1:
        dets = make.top_boxes(rng, max(count, 6000), True)[:count]
    else:
        few = [make.top_boxes(rng, 6000, True) for _ in range(4)]
        groups = classes * images
        dets = np.concatenate([rng.permutation(few[k % 4])[:count] for k in range(groups)])
    group = np.repeat(np.arange(classes * images), count)
    indices = [np.zeros(len(dets)), group % classes, group // classes]
    return dets, *(index.astype(np.float32) for index in indices)


def measure(gpu: Any, rounds: int, only: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figures of every peer job; nothing without torchvision on a GPU."""
    try:
        import torch
        import torchvision
    except ImportError as error:
        print(f"no peers: {error}")
        return
    if not torch.cuda.is_available():
        print("no peers: this PyTorch finds no GPU")
        return
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    for name, run, agree in peer_jobs(torch, torchvision, gpu):
        if only not in name:
            continue
        outputs = agree(run())
        result = {"call_ms": median_ms(torch, run, rounds), "outputs": outputs}
        yield f"{name} ({versions})", result


def median_ms(torch: Any, run: Callable[[], Any], rounds: int) -> float:
    """Median of calls between two events; the events wait for nothing else."""
    times = []
    for k in range(rounds + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        if k >= 5:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def peer_jobs(torch: Any, torchvision: Any, gpu: Any) -> Iterator[tuple[Any, ...]]:
    for count in (300, 1000, 3000, 6000, 12000):
        yield f"torchvision.ops.nms: one class of {count}", *nms(torch, torchvision, gpu, count)
    name = "torchvision.ops.batched_nms: 16 images, 80 classes of 100"
    yield name, *batched_nms(torch, torchvision, gpu)
    for batch in (1, 16):
        for height, width in ((32, 32), (50, 80), (88, 125)):
            name = f"top-k, decode, torchvision.ops.nms: {height}x{width}, batch {batch}"
            yield name, *proposals(torch, torchvision, gpu, height, width, batch)


def kept_rows(gpu: Any, rows: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """What our kernels keep: dets, classes, images."""
    ranges = np.float32([[-1, -1]])
    *outputs, count = calls.multi_scale_nms(gpu, *rows, ranges, threshold=THRESHOLD)
    return tuple(output[: int(count[0])] for output in outputs)


def nms(torch: Any, torchvision: Any, gpu: Any, count: int) -> tuple[Any, Any]:
    rows = detections(count, 1, 1)
    dets = torch.from_numpy(rows[0]).cuda()
    boxes, scores = dets[:, :4] + dets.new_tensor([0, 0, 1, 1]), dets[:, 4].contiguous()

    def agree(kept: Any) -> str:
        ours = kept_rows(gpu, rows)[0]
        theirs = rows[0][kept.cpu().numpy()]
        assert np.array_equal(ours, theirs), "the kept rows differ"
        return f"{len(ours)} kept rows equal"

    return lambda: torchvision.ops.nms(boxes, scores, THRESHOLD), agree


def batched_nms(torch: Any, torchvision: Any, gpu: Any) -> tuple[Any, Any]:
    rows = detections(100, 80, 16)
    dets = torch.from_numpy(rows[0]).cuda()
    boxes, scores = dets[:, :4] + dets.new_tensor([0, 0, 1, 1]), dets[:, 4].contiguous()
    groups = torch.from_numpy(rows[3] * 80 + rows[2]).cuda().long()

    def agree(kept: Any) -> str:
        index = kept.cpu().numpy()
        theirs = np.column_stack([rows[0], rows[2], rows[3]])[index]
        ours = np.column_stack(kept_rows(gpu, rows))
        common = len(set(map(tuple, theirs.tolist())) & set(map(tuple, ours.tolist())))
        assert common >= LEAST_SHARE * max(len(ours), len(theirs)), f"{common} rows in common"
        return f"{common} of {len(ours)} and {len(theirs)} kept rows equal"

    return lambda: torchvision.ops.batched_nms(boxes, scores, groups, THRESHOLD), agree


def proposals(
    torch: Any, torchvision: Any, gpu: Any, height: int, width: int, batch: int
) -> tuple[Any, Any]:
    maps = make.rpn_maps(np.random.default_rng(0), height, width, batch, True)
    on_gpu = {name: torch.from_numpy(array).cuda() for name, array in maps.items()}
    anchors = torch.from_numpy(make.all_anchors(height, width).reshape(-1, 4)).cuda()
    sizes = anchors[:, 2:] - anchors[:, :2] + 1
    centres = (anchors[:, 2:] + anchors[:, :2]) / 2
    limits = anchors.new_tensor([width * 16 - 1, height * 16 - 1])

    def run() -> list[Any]:
        scores = on_gpu["cls_prob"][:, make.NUM_ANCHORS :].reshape(batch, -1)
        deltas = on_gpu["bbox_pred"].view(batch, make.NUM_ANCHORS, 4, -1).permute(0, 1, 3, 2)
        deltas = deltas.reshape(batch, -1, 4)
        best, index = scores.topk(PRE_NMS, dim=1)
        found = []
        for image in range(batch):
            chosen, delta = index[image], deltas[image][index[image]]
            centre = centres[chosen] + delta[:, :2] * sizes[chosen]
            half = (delta[:, 2:].exp() * sizes[chosen] - 1) / 2
            low = (centre - half).minimum(limits).clamp(min=0)
            high = (centre + half).minimum(limits).clamp(min=0)
            large = (high - low + 1 >= 3).all(dim=1)
            boxes = torch.cat([low, high + 1], dim=1)[large]
            kept = torchvision.ops.nms(boxes, best[image][large], THRESHOLD)[:POST_NMS]
            found.append(boxes[kept])
        return found

    def agree(found: list[Any]) -> str:
        ours, _ = calls.multi_proposal(
            gpu, *maps.values(), pre_nms_top_n=PRE_NMS, post_nms_top_n=POST_NMS,
            nms_thresh=THRESHOLD, min_size=3, **calls.RESNET,
        )  # fmt: skip
        worst = POST_NMS
        for image, boxes in enumerate(found):
            theirs = boxes.cpu().numpy() - np.float32([0, 0, 1, 1])
            mine = ours[POST_NMS * image : POST_NMS * image + len(theirs), 1:]
            apart = np.abs(mine[:, None] - theirs[None]).max(axis=2).min(axis=1)
            worst = min(worst, int((apart < TOLERANCE_PX).sum()))
        assert worst >= LEAST_EQUAL, f"{worst} of {POST_NMS} boxes equal"
        return f"{worst} of {POST_NMS} boxes equal in the worst of {batch} images"

    return run, agree
