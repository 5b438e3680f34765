"""torchvision's operators as a peer."""

from __future__ import annotations

from typing import Any

from bench.case import PeerMissingError


def torchvision_ops(threads: int) -> tuple[Any, Any]:
    """The modules `torch` and `torchvision.ops`, with so many threads.

    Raises:
        PeerMissingError: one of them is not installed.
    """
    try:
        import torch
        from torchvision import ops
    except ImportError as error:
        raise PeerMissingError(
            f"torchvision is not installed ({error}); it is optional and takes 6 GB"
        ) from None
    torch.set_num_threads(threads)
    return torch, ops
