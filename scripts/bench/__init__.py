"""Benchmarks of the operators against named peers: see README.md."""
