"""Searches, a file each."""
