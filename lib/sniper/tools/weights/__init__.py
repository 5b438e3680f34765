"""Readers of foreign weight files: one small module per source."""
