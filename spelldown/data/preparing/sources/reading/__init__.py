"""What several sources read alike: lines of text, rows of tables, paths to audio, identifiers."""
