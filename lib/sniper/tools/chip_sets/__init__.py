"""Chips as data sets for other trainers, and the way of their detections back to the images."""
