# The update of a training step on the CPU; the arrays are changed in place.
from libcpp.vector cimport vector

cdef extern from "sgd_update/sgd_update.h" namespace "sniper" nogil:
    cdef struct SgdSettings:
        float momentum, clip
    cdef cppclass SgdArrays:
        int64_t size
        float* gradient
        vector[const float*] others
        float* weight
        float* momentum
        vector[float*] copies
        float rate, decay
    bint reduce_gradients_cpu(const vector[SgdArrays]&, float, int) except +
    void sgd_update_cpu(const vector[SgdArrays]&, const SgdSettings&, int) except +


cdef float* _live(name, array, Py_ssize_t size) except *:
    """Where the floats of an array begin that is read or changed in place: never a copy of it."""
    cdef float[::1] view
    fits = isinstance(array, np.ndarray) and array.dtype == np.float32 and array.ndim == 1
    if not fits or not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise OpsError(
            f"`{name}` holds no array that can be updated.",
            got=got,
            expected="a writeable, contiguous vector of float32",
        )
    if size >= 0 and array.shape[0] != size:
        raise OpsError(f"an array of `{name}` has another size.", got=array.shape[0], expected=size)
    view = array
    return &view[0] if view.shape[0] else NULL


def _lists(name, lists, count):
    """A list of lists of `count` arrays each."""
    fits = isinstance(lists, list) and all(isinstance(one, list) for one in lists)
    if not fits or not all(len(one) == count for one in lists):
        raise OpsError(f"`{name}` are not lists of as many arrays.", expected=f"{count} in each")
    return lists


def _vector_list(name, arrays):
    if not isinstance(arrays, list):
        raise OpsError(f"`{name}` is no list of arrays.", got=type(arrays).__name__)
    return arrays


def reduce_gradients(gradients, others, divisor=1.0, threads=1):
    """Sums the gradients of several contexts into the first one's.

    Args:
        gradients: vectors, float32; each becomes (itself + others in their order) / divisor.
        others: one list like `gradients` for every other context.
        divisor: positive.
        threads: of the processor.

    Returns:
        Whether all sums are finite.

    Raises:
        OpsError: a wrong array or number.
    """
    cdef vector[SgdArrays] tensors
    cdef SgdArrays tensor
    cdef float by = _number("divisor", divisor, 1e-30, 1e30)
    cdef int team = _integer("threads", threads, 1, 1024)
    cdef bint finite
    gradients = _vector_list("gradients", gradients)
    others = _lists("others", others, len(gradients))
    for index, gradient in enumerate(gradients):
        tensor.gradient = _live("gradients", gradient, -1)
        tensor.size = gradient.shape[0]
        tensor.others.clear()
        for one in others:
            tensor.others.push_back(_live("others", one[index], tensor.size))
        tensors.push_back(tensor)
    try:
        with nogil:
            finite = reduce_gradients_cpu(tensors, by, team)
    except (MemoryError, RuntimeError) as error:
        raise _refused("reduce_gradients", error) from None
    return bool(finite)


def sgd_update(gradients, weights, momenta, copies, rates, decays, momentum, clip=-1.0, threads=1):
    """SGD with momentum: as MXNet's `multi_sgd_mom_update`, to the bit, in one pass.

    Args:
        gradients: vectors, float32, one per parameter.
        weights: the parameters; updated.
        momenta: updated.
        copies: lists like `weights`, of the other contexts; each gets the new weights.
        rates: learning rate of each parameter.
        decays: weight decay of each parameter.
        momentum: of all.
        clip: limit of every value of the gradients; negative: none.
        threads: of the processor.

    Raises:
        OpsError: a wrong array or number.
    """
    cdef vector[SgdArrays] tensors
    cdef SgdArrays tensor
    cdef SgdSettings settings
    cdef int team = _integer("threads", threads, 1, 1024)
    settings.momentum = _number("momentum", momentum, 0, 1)
    settings.clip = _number("clip", clip, -1, 1e30)
    gradients = _vector_list("gradients", gradients)
    each = _lists("weights, momenta, rates, decays", [weights, momenta, rates, decays],
                  len(gradients))
    copies = _lists("copies", copies, len(gradients))
    for index, gradient in enumerate(gradients):
        tensor.gradient = _live("gradients", gradient, -1)
        tensor.size = gradient.shape[0]
        tensor.weight = _live("weights", each[0][index], tensor.size)
        tensor.momentum = _live("momenta", each[1][index], tensor.size)
        tensor.rate = _number("rates", each[2][index], -1e30, 1e30)
        tensor.decay = _number("decays", each[3][index], -1e30, 1e30)
        tensor.copies.clear()
        for one in copies:
            tensor.copies.push_back(_live("copies", one[index], tensor.size))
        tensors.push_back(tensor)
    try:
        with nogil:
            sgd_update_cpu(tensors, settings, team)
    except (MemoryError, RuntimeError) as error:
        raise _refused("sgd_update", error) from None
