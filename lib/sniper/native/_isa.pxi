# Which copies of the kernels run; a wrong SNIPER_MAX_ISA ends the import.
cdef extern from "common/isa.h" namespace "sniper" nogil:
    const char* isa_name()
    const char* isa_problem()


def isa():
    """The instruction set in force: "avx512", "avx2" or "baseline"; see `sniper.native.isa`."""
    return isa_name().decode()


if isa_problem() != NULL:
    raise OpsError(isa_problem().decode(errors="replace"))
