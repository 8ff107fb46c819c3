"""The page of a study: runs in a folder -> one HTML file, a Markdown table and a CSV table."""
