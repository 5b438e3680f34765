"""MXNet and our operators for the parts of a network, imported when a graph is first built.

So what heads and backbones declare (labels, decoding, metrics, strides, options) can be read by the
tools that look at data, and by engines for detection that have no MXNet. Where MXNet is not
installed, what needs it says so in one sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mxnet as mx

    from sniper import ops
else:
    from importlib import import_module

    from sniper.errors import without_mxnet

    class _Lazy:
        """Stands for a module until one of its names is asked for."""

        def __init__(self, module: str) -> None:
            self._module = module

        def __getattr__(self, name: str) -> Any:
            try:
                return getattr(import_module(self._module), name)
            except ModuleNotFoundError as error:
                if error.name != "mxnet":
                    raise
                raise without_mxnet() from None

    mx = _Lazy("mxnet")
    ops = _Lazy("sniper.ops")

__all__ = ["mx", "ops"]
