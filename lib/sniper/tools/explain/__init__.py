"""Parts of the commands that explain data sets, chips and results."""
