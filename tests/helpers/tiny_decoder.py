"""Decoders for the tests of all methods, trained for a moment."""

import copy
import dataclasses

from picture_sound import sound_of

from audioxai_utils.attributions import METHODS, decoder_training
from audioxai_utils.attributions.lmac_td import as_heard
from audioxai_utils.attributions.sound_decoder import SoundRecipe


def tiny_decoder(model, db, folder, method="lmac"):
    """Path of a method's decoder of ``model`` that saw ``db`` once, or heard it as `picture_sound` has it."""
    path = folder / f"{method}.pt"
    recipe, given = dataclasses.replace(METHODS.traits(method).recipe, epochs=1), db
    own = copy.deepcopy(model).eval()
    if isinstance(recipe, SoundRecipe):
        sound = sound_of(db)
        own, given = as_heard(own, sound["spectrogram"]), sound["waveform"]
    decoder_training.save_decoder(decoder_training.train_decoder(own, given, recipe), path)
    return path


def tiny_decoders(model, db, folder):
    """Such a path by the name of each method that is trained."""
    trained = [name for name in METHODS if METHODS.traits(name).recipe is not None]
    return {name: tiny_decoder(model, db, folder, name) for name in trained}
