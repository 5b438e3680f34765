"""Parts of `sniper analyze`."""
