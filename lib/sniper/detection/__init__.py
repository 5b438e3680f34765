"""Detection with trained models: runs on data sets, the Predictor, archives, INT8."""
