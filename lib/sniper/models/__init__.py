"""Networks as MXNet symbols: backbones and heads as parts, their assembly, and weights."""
