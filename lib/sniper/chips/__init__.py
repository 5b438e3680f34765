"""Chips: which windows of the image pyramid are trained in an epoch, and on which boxes."""
