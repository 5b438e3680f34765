"""Loaders: records and chips in, batches of NumPy arrays out. No MXNet in here."""
