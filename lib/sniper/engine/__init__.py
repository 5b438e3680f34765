"""Training and testing runs: the only rooms that read the configuration."""
