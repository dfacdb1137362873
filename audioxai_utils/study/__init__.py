"""One run of the study: its settings, its conditions, what is on file."""
