# The last step of a training batch: compact samples become the float32 tensors of the network.
from libc.stdint cimport int8_t, uint8_t


cdef extern from "batch/image_to_chw.h" namespace "sniper" nogil:
    cdef struct ChwBatch:
        int64_t samples, slot_height, slot_width, slot_bytes, row_bytes, height, width
        double means[3]
        bint one_thread
    void image_to_chw_cpu(const ChwBatch&, const uint8_t*, const int32_t*, float*) except +


cdef extern from "batch/expand_rpn_batch.h" namespace "sniper" nogil:
    cdef struct RpnBatch:
        int64_t samples, anchors, cells, max_positives
    void expand_rpn_batch_cpu(const RpnBatch&, const int8_t*, const int32_t*, const int32_t*,
                              const float*, float*, float*, float*) except +


def image_to_chw(pixels, content_hw, pixel_means, out, one_thread=False):
    """Pixels as the network reads them: RGB planes minus the means.

    Args:
        pixels: uint8 (n, H, W, 3) BGR; outside the content they may be anything. A window of an
            image is read in place.
        content_hw: int32 (n, 2), rows and columns from the top left that are content.
        pixel_means: three numbers, BGR; subtracted in double precision, rounded once.
        out: float32 (n, 3, h, w), C-contiguous; receives the result: content beyond (h, w) is cut
            off, and it is 0 where there is no content.
        one_thread: on the caller's thread, for those who have several threads themselves; False: on
            OMP_NUM_THREADS.

    Raises:
        OpsError: a wrong array, means that are no three numbers, or content larger than (H, W).
    """
    cdef ChwBatch batch
    pixels = _strided("pixels", pixels, np.uint8, (None, None, None, 3))
    if pixels.strides[2:] != (3, 1) or min(pixels.strides) < 0:
        pixels = np.ascontiguousarray(pixels)
    batch.slot_bytes, batch.row_bytes = pixels.strides[:2]
    content_hw = _array("content_hw", content_hw, np.int32, (pixels.shape[0], 2))
    batch.samples, batch.slot_height, batch.slot_width = pixels.shape[:3]
    means = _numbers("pixel_means", pixel_means, -1e6, 1e6)
    if len(means) != 3:
        raise _wrong("pixel_means", pixel_means, "three numbers")
    batch.means = means
    batch.one_thread = bool(one_thread)
    _check_out("out", out, (batch.samples, 3, None, None))
    batch.height, batch.width = out.shape[2:]
    if out.size == 0 or pixels.size == 0:
        out[...] = 0
        return
    cdef const uint8_t[:, :, :, :] pixel_view = pixels
    cdef const int32_t[:, ::1] content_view = content_hw
    cdef float[:, :, :, ::1] out_view = out
    try:
        with nogil:
            image_to_chw_cpu(batch, &pixel_view[0, 0, 0, 0], &content_view[0, 0],
                             &out_view[0, 0, 0, 0])
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("image_to_chw", error) from None


def expand_rpn_batch(label, counts, index, values, out_label, out_target, out_weight):
    """`expand_rpn` for all samples of a batch, on several threads.

    Args:
        label: int8 (n, A*H*W).
        counts: int32 (n,), positives of each sample.
        index: int32 (n, p), positive anchors; the first `counts[i]` of a row are used.
        values: float32 (n, p, 4), their regression targets.
        out_label: float32 (n, A*H*W), gets the labels.
        out_target: float32 (n, 4A, H, W), gets the targets in the channels 4a + k of the positives,
            0 elsewhere.
        out_weight: float32 (n, 4A, H, W), gets 1 there, 0 elsewhere.

    Raises:
        OpsError: a wrong array, a count above p or an index that is no anchor.
    """
    cdef RpnBatch batch
    label = _array("label", label, np.int8, (None, None))
    batch.samples = samples = label.shape[0]
    counts = _array("counts", counts, np.int32, (samples,))
    index = _array("index", index, np.int32, (samples, None))
    batch.max_positives = index.shape[1]
    values = _array("values", values, np.float32, (samples, index.shape[1], 4))
    _check_out("out_target", out_target, (samples, None, None, None))
    _check_out("out_weight", out_weight, out_target.shape)
    batch.anchors = out_target.shape[1] // 4
    batch.cells = out_target.shape[2] * out_target.shape[3]
    if out_target.shape[1] % 4 or batch.anchors * batch.cells != label.shape[1]:
        raise OpsError(
            "`out_target` does not fit to `label`.", got=out_target.shape, expected=label.shape
        )
    _check_out("out_label", out_label, label.shape)
    if label.size == 0:
        return
    # A sample without room for positives has none, and no address either.
    cdef const int32_t[:, ::1] index_view = index if index.size else np.zeros((1, 1), np.int32)
    cdef const float[:, :, ::1] values_view
    values_view = values if values.size else np.zeros((1, 1, 4), np.float32)
    cdef const int8_t[:, ::1] label_view = label
    cdef const int32_t[::1] counts_view = counts
    cdef float[:, ::1] out_label_view = out_label
    cdef float[:, :, :, ::1] target_view = out_target, weight_view = out_weight
    try:
        with nogil:
            expand_rpn_batch_cpu(batch, &label_view[0, 0], &counts_view[0], &index_view[0, 0],
                                 &values_view[0, 0, 0], &out_label_view[0, 0],
                                 &target_view[0, 0, 0, 0], &weight_view[0, 0, 0, 0])
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("expand_rpn_batch", error) from None


def _check_out(name, array, shape):
    """Refuses an array that a kernel could not write to in place."""
    if _array(name, array, np.float32, shape) is not array or not array.flags.writeable:
        raise OpsError(f"`{name}` must be C-contiguous and writeable: it receives the result.")
