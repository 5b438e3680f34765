"""Generator of small synthetic data sets: shapes in the COCO layout, faces in that of WIDER FACE."""
