"""The classifiers that are explained: Cnn14, its training, and copies of it that answer faster."""
