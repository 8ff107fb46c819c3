"""The commands that prepare corpora."""
