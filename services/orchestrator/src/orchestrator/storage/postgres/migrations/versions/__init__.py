"""One revision a file: a few lines of Python that run the SQL file of the same number."""
