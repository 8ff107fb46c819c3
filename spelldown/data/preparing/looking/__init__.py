"""A look at a prepared corpus: what is doubtful in it, its figures, and a page that shows them."""
