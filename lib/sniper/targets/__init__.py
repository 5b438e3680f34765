"""Training targets of one chip: anchors, RPN labels and the ground truth that the chip sees.

`sniper.targets.reference` tells in words and plain NumPy how anchors are matched and sampled.
"""
