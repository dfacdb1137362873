"""Decoders for the tests of all methods, trained for a moment."""

import copy
import dataclasses

from audioxai_utils.attributions import METHODS, decoder_training


def tiny_decoder(model, db, folder, method="lmac"):
    """Path of a method's decoder of ``model`` that saw ``db`` once."""
    path = folder / f"{method}.pt"
    recipe = dataclasses.replace(METHODS.traits(method).recipe, epochs=1)
    fitted = decoder_training.train_decoder(copy.deepcopy(model).eval(), db, recipe)
    decoder_training.save_decoder(fitted, path)
    return path


def tiny_decoders(model, db, folder):
    """Such a path by the name of each method that is trained."""
    trained = [name for name in METHODS if METHODS.traits(name).recipe is not None]
    return {name: tiny_decoder(model, db, folder, name) for name in trained}
