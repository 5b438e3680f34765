"""Training targets of one chip: anchors, RPN labels and the ground truth that the chip sees."""
