"""L-MAC's decoder for the tests of all methods, trained for a moment."""

import copy

from audioxai_utils.attributions import decoder_training


def tiny_decoder(model, db, folder):
    """Path of a decoder of ``model`` that saw ``db`` once."""
    path = folder / "decoder.pt"
    fitted = decoder_training.train_decoder(
        copy.deepcopy(model).eval(), db, decoder_training.Recipe(epochs=1)
    )
    decoder_training.save_decoder(fitted, path)
    return path
