"""Pages: the listening gallery, the explorer, the listening test, the report."""
