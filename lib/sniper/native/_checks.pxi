# Checks that the kernels' Python faces share: each raises one OpsError that names the argument.
from sniper.errors import OpsError

cdef extern from "common/range.h" namespace "sniper" nogil:
    cdef struct Range:
        double low, high

_MAX_ITEMS = 1024  # of a list argument


def _array(name, array, dtype, shape):
    """`array` as a C-contiguous array (copied when it is not); sizes that are None may be any."""
    return np.ascontiguousarray(_strided(name, array, dtype, shape))


def _strided(name, array, dtype, shape):
    """`array` as it is; sizes that are None may be any."""
    fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == len(shape)
    if fits:
        for size, found in zip(shape, array.shape):
            if size is not None and size != found:
                fits = False
    if not fits:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise OpsError(
            f"`{name}` is no array of the right dtype and shape.",
            got=got,
            expected=f"{np.dtype(dtype).name} ({sizes})",
        )
    return array


def _wrong(name, value, expected):
    return OpsError(f"`{name}` is out of range.", got=repr(value)[:80], expected=expected)


def _number(name, value, double low, double high):
    """`value` as a float in [low, high]; NaN, bools and everything else is refused."""
    numeric = isinstance(value, (int, float, np.integer, np.floating))
    if not numeric or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(name, value, f"a number from {low:g} to {high:g}")
    return float(value)


def _integer(name, value, low, high):
    """`value` as an int in [low, high]; fractions and bools are refused."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise _wrong(name, value, f"an integer from {low} to {high}")
    return int(value)


cdef _number_within(name, value, Range limits):
    return _number(name, value, limits.low, limits.high)


cdef _integer_within(name, value, Range limits):
    return _integer(name, value, int(limits.low), int(limits.high))


def _flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise _wrong(name, value, "True or False")
    return bool(value)


def _numbers(name, values, double low, double high):
    """`values` as a list of one or more floats in [low, high]."""
    expected = f"1 to {_MAX_ITEMS} numbers from {low:g} to {high:g}"
    if isinstance(values, (str, bytes)):
        raise _wrong(name, values, expected)
    try:
        values = iter(values)
    except TypeError:
        raise _wrong(name, values, expected) from None
    items = []
    for value in values:
        items.append(_number(name, value, low, high))
        if len(items) > _MAX_ITEMS:
            raise _wrong(name, values, expected)
    if not items:
        raise _wrong(name, values, expected)
    return items


def _refused(op, error):
    """The OpsError for what a kernel or NumPy threw."""
    if isinstance(error, MemoryError):
        return OpsError(f"{op} needs more memory than there is.", got=str(error) or None)
    return OpsError(f"{op} refused its input: {error}")
