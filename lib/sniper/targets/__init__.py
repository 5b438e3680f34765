"""Training targets of one chip: anchors, RPN labels and the ground truth that the chip sees.

Two files tell in words and plain NumPy what the compiled code does: `sniper.targets.reference` how
anchors are matched and sampled, `sniper.targets.roi_reference` how proposals are made and labelled.
"""
