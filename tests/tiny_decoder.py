"""L-MAC's decoder for the tests of all methods, trained for a moment."""

import copy

from audioxai_utils import decoders


def tiny_decoder(model, db, folder):
    """Path of a decoder of ``model`` that saw ``db`` once."""
    path = folder / "decoder.pt"
    fitted = decoders.train_decoder(copy.deepcopy(model).eval(), db, decoders.Recipe(epochs=1))
    decoders.save_decoder(fitted, path)
    return path
