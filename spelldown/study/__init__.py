"""Studies: many runs from one file, and the page that tells what they showed."""
