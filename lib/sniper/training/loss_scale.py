"""Loss scaling: gradients of half-precision layers must neither vanish nor overflow.

Micikevicius et al., "Mixed Precision Training" (2018), section 3.2. In 2018 the scale was fixed.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import mxnet as mx

from sniper.errors import TrainingError

logger = logging.getLogger(__name__)

# Operators that make gradients of their own, and so take the scale as an attribute.
LOSS_OPS = ("SoftmaxOutput", "MakeLoss")

LOWEST = 1.0
HIGHEST = 2.0**24
FACTOR = 2.0


@dataclass
class LossScale:
    """The loss scale and the rule by which it changes.

    Args:
        value: the scale in force.
        dynamic: whether it changes at all.
        window: updates without overflow after which it doubles.
        good_updates: updates since the last change.
    """

    value: float
    dynamic: bool = False
    window: int = 2000
    good_updates: int = 0

    def updated(self) -> bool:
        """An update without overflow was made; returns whether the scale has changed."""
        if not self.dynamic:
            return False
        self.good_updates += 1
        if self.good_updates < self.window:
            return False
        return self._change(min(self.value * FACTOR, max(HIGHEST, self.value)))

    def overflowed(self) -> bool:
        """A gradient was not finite; returns whether the scale has changed.

        False says that the scale is not the reason: it is fixed, or already at its lowest.
        """
        return self.dynamic and self._change(max(self.value / FACTOR, min(LOWEST, self.value)))

    def _change(self, value: float) -> bool:
        changed = value != self.value
        if changed:
            logger.info("the loss scale is now %g", value)
        self.value, self.good_updates = value, 0
        return changed


def scale_losses(symbol: mx.sym.Symbol, factor: float) -> mx.sym.Symbol:
    """The same network with all loss gradients multiplied by `factor`.

    The scale is an attribute of the loss operators, so that another one takes another graph.

    Raises:
        TrainingError: the network has no loss operator.
    """
    if factor == 1:
        return symbol
    graph = json.loads(symbol.tojson())
    losses = [node for node in graph["nodes"] if node["op"] in LOSS_OPS]
    if not losses:
        raise TrainingError("the network has no loss whose gradient could be scaled")
    for node in losses:
        attributes = node.setdefault("attrs", {})
        attributes["grad_scale"] = repr(float(attributes.get("grad_scale", 1.0)) * factor)
    return mx.sym.load_json(json.dumps(graph))
