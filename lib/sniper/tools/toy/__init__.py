"""Generator of small synthetic data sets: shapes as in COCO, faces as in WIDER FACE."""
