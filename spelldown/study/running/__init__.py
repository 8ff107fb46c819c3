"""A study under way: what is missing is given to a place, a process for each run."""
