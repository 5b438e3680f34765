"""The parts of a training run: an update, its workers, its metrics, its checkpoints."""
