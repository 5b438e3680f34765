"""The runs: the configuration becomes plans, and plans become training, detection and export."""
