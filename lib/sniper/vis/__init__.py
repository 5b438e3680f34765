"""Drawings of detections, ground truth and chips."""
