"""Data sets from one format to another: what `sniper convert-data` reads and writes."""
