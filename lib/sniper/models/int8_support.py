"""What INT8 networks can be expected to do on this processor.

With AVX-512 VNNI products of 8 bits are added up in 32 bits: INT8 is exact but for the rounding of
weights and maps. Without it oneDNN adds each two products in 16 bits. Sums that do not fit are cut
off (they never change their sign), and weights of maps with negative numbers keep 7 bits. Nor is
that faster than fp32: three instructions do there what one does with VNNI.

An archive holds weights in fp32 and ranges found in fp32, so that it is the same whichever
processor made it; what differs is what a processor computes with it.
"""

from __future__ import annotations

import os
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# What oneDNN of MXNet 1.9.1 knows.
FAST_INT8 = "avx512_vnni"
# oneDNN's own limit, and its values that leave these instructions out.
ISA_LIMIT = "DNNL_MAX_CPU_ISA"
_LIMITS_WITHOUT = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_MIC", "AVX512_MIC_4OPS",
                   "AVX512_CORE")  # fmt: skip

WITH_INSTRUCTIONS = "AVX-512 VNNI: INT8 networks are exact but for rounding, and fastest"
WITHOUT_INSTRUCTIONS = (
    "no AVX-512 VNNI: INT8 networks are less exact here (sums of two products are cut off at 16 "
    "bits) and no faster than fp32"
)


def has_int8_instructions(cpu_info: Path = CPU_INFO) -> bool:
    """True with AVX-512 VNNI that oneDNN may use; False on systems that do not say."""
    if os.environ.get(ISA_LIMIT, "").upper() in _LIMITS_WITHOUT:
        return False
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return FAST_INT8 in flags.split()
