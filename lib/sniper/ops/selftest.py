"""Quick numeric self-tests of all operators, for `sniper doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sniper.ops import selftest_chips, selftest_masks, selftest_proposals, selftest_relu6

SELF_TESTS: Mapping[str, Callable[[], None]] = {
    **selftest_proposals.SELF_TESTS,
    **selftest_masks.SELF_TESTS,
    **selftest_chips.SELF_TESTS,
    **selftest_relu6.SELF_TESTS,
}
