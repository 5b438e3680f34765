"""The runs: the configuration becomes plans here, and plans become training and detection."""
