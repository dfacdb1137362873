"""Planted causes: does an explanation point at the cause that was planted, and which metric would have told?

A sound is added to clips, or taken from them, and a classifier is trained that has nothing else to go by.
What it hears is then known: exactly the bins that the plant changed. Beside every plant stands its decoy, as
loud and of the same kind, in all clips of all classes; it means nothing.

plants      eight kinds of plants, each a pair of sounds that can change roles
cases       a plant, a level, a classifier: mixtures, what is true of them, proof that the plant is the cause
networks    classifiers that hear a plant: heads on a pretrained tagger, a small Cnn14, their controls
material    the clips of ESC-50 that are used
prepare     all cases of them, written to a folder
decoders    decoders for the cases, of the methods that are trained first
measures    how well a map points at the plant, against chance and decoy
benchmark   all cases made, judged and joined by a run, or the published tables
judge       every method on every case of a folder, resumable, on any device
fills       what masks keep and remove under several fills, for the metrics that are to be judged
agreement   which metric ranks methods as the truth does, and the regret of choosing by it
holding     whether a mask keeps its class under every fill, beside LIME's
warning     whether a method tells a model with a plant from one without, and from how many clips on
"""
