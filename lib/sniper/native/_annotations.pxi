# Annotations from the text of a COCO file.
from cpython.bytes cimport PyBytes_FromStringAndSize


cdef extern from "annotation_scan/annotation_scan.h" namespace "sniper" nogil:
    cdef cppclass AnnotationScan:
        int64_t end
        vector[uint8_t] rows
        vector[int32_t] rings
        vector[float] numbers
    AnnotationScan scan_annotations_cpu(const char*, int64_t, int64_t, c_bool) except +


def scan_annotations(text, start, *, with_masks):
    """Takes annotations from the text of a list, up to the first that is not plain JSON in COCO format.

    Args:
        text: bytes of ASCII, where any character may stand for those that are none.
        start: where the first one begins.
        with_masks: also take the polygons.

    Returns:
        The place behind the last one that was taken and its comma, where another one begins; and as
        bytes the rows (69 bytes each: float64 x, y, width, height and area, int64 id, image_id and
        category_id, uint8 flags, int32 number of polygons), the int32 sizes of the polygons in
        bytes, and their float32 numbers.

    Raises:
        OpsError: the text is no bytes, or the start lies outside.
    """
    if not isinstance(text, bytes):
        raise _wrong("text", type(text).__name__, "bytes")
    cdef bytes content = text
    cdef int64_t size = len(content)
    cdef int64_t first = _integer("start", start, 0, size)
    cdef c_bool masks = _flag("with_masks", with_masks)
    cdef const char* place = content
    cdef AnnotationScan scan
    try:
        with nogil:
            scan = scan_annotations_cpu(place, size, first, masks)
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        raise _refused("scan_annotations", error) from None
    return (
        scan.end,
        PyBytes_FromStringAndSize(<const char*>scan.rows.data(), scan.rows.size()),
        PyBytes_FromStringAndSize(<const char*>scan.rings.data(), 4 * scan.rings.size()),
        PyBytes_FromStringAndSize(<const char*>scan.numbers.data(), 4 * scan.numbers.size()),
    )
