"""Networks as MXNet symbols: backbones, heads, their assembly into detectors, and weights."""
