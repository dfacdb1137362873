"""The classifier: architecture, training, and a copy that is sooner."""
