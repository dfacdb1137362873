"""Every figure of the study, in one style."""
