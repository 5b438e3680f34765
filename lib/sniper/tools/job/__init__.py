"""A training job of several processes: what `sniper launch` starts, watches and ends."""
