"""The page: one self-contained HTML file, its parts made ready for the template page.html."""
