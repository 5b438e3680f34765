"""Parts of `sniper report`: one HTML page of a data set and of a run."""
