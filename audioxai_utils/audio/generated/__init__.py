"""A dataset and noises that are synthesised, with their parts known."""
