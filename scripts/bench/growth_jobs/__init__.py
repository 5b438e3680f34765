"""Jobs of growth.py: every module has a list JOBS."""
