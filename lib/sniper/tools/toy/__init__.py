"""Generator of small synthetic data sets in the COCO layout (`sniper make-toy-data`)."""
