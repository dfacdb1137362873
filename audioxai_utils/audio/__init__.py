"""Sound in, sound out: datasets, recordings, noise, spectrograms and back."""
