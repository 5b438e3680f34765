"""Front of RoI max-pooling with a mean over the bins."""

from __future__ import annotations

from sniper.ops.checks import Tensor, call, frontend


def roi_max_mean_pooling(
    data: Tensor,
    rois: Tensor,
    *,
    spatial_scale: float,
    pooled_size: int = 7,
    name: str = "roi_max_mean_pooling",
) -> Tensor:
    """RoI max-pooling (Girshick 2015, section 2.1), then the mean over the bins, in one pass.

    What `mean(ROIPooling(data, rois), axis=(2, 3))` gives, without the bins in between: they take
    49 times the memory of the result, and as much again for the positions of the maxima, which
    1800 RoIs of a map of 3130 classes (R-FCN-3000, Singh et al. 2018) turn into 2.2 GB. Only a
    block of channels is worked on at a time. Differentiable in `data`; the gradient does not depend
    on the number of threads, and its pass looks for the maxima again.

    Args:
        data: (N, C, H, W).
        rois: (R, 5), batch index, x1, y1, x2, y2 in image px. Rows that are not finite, reach
            further than 1e8 cells, or have a batch index outside 0..N-1 give zeros. No gradient.
        spatial_scale: feature cells per image px.
        pooled_size: bins per side.
        name: the symbol's output is called `<name>_output`.

    Returns:
        (R, C). A bin without a cell of the map counts as 0; values that are NaN are left out.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "roi_max_mean_pooling"
    front = frontend(op, data=data, rois=rois)
    arguments = {"spatial_scale": spatial_scale, "pooled_size": pooled_size}
    # The operator is not told to add to a gradient; `identity` in front of it is.
    inputs = [front.identity(data), front.BlockGrad(rois)]
    return call(op, front, "ROIMaxMeanPooling", inputs, arguments, name=name)
