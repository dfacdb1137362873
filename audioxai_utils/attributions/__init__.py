"""Attribution methods: what in a spectrogram speaks for the explained class.

The contract of every method, written once
------------------------------------------
``METHODS[name](model, db, target, **options)`` returns an attribution.

model : nn.Module
    ``model(db)`` returns scores (batch, classes); each clip's scores depend on that clip
    alone in eval mode. Its parameters share ``db``'s device, and its dtype unless it casts by itself.
    What the scores are, where silence lies and when a class is heard says its attribute ``reading``
    (`models.reading.Reading`); without one they are softmax logits and silence is at -100 dB. Any
    network, whatever it takes and returns, is brought into this form by `models.classifier.AudioClassifier`.
db : Tensor (batch, 1, frequency, time)
    Finite float spectrograms in dB.
target : Tensor (batch,) of integers
    The explained class c of each clip; the study takes the predicted one.
engine : "fast" | "reference"
    ``fast`` (default) is this package's own path, ``reference`` the library's (captum, lime,
    shap). They give the same values. Methods with one path accept both names; ``shap`` has ``exact`` too,
    which takes over where modules do not add up.
options
    Each method's own; see the module of its name.

Returns a tensor of ``db``'s shape, dtype and device: raw, signed, in logits per dB, logits
or probability as the method has it. A clip's attribution does not depend on the other clips
of its batch. Scaling belongs to masks and plots alone.

The model is explained in eval mode, and is left as it was found, also after an error: every
module's own ``training`` flag, hooks and attributes, every buffer, every parameter's ``requires_grad`` and
``grad``. ``db`` and its ``grad`` are not touched, and neither is any global random state.

A method that keeps sounds itself, because its parts overlap in a bin, returns ``registry.Found(attribution,
sound)`` with sound (batch, samples): ``METHODS[name]`` gives the attribution as ever, ``METHODS.found(name,
...)`` both, and ``explain`` scores the sound as it is heard.

Methods that say ``gradients=True`` differentiate the model, and those that say ``layers=True`` look inside;
both refuse a black box. The others only ask for outputs and take anything.

Raises TypeError for what is no model, no tensor or an unknown option, and ValueError for
wrong shapes, types, classes or values, before anything is computed; a class out of range
shows at the model's first output.

A new method
------------
Write a function ``(model, db, target, *, options...)`` under
``@register("<name>")`` in a file of ``attributions``: it is found by that line and imported at first use, by
``run_all.sh --method <name>`` too. What the study's sizes and reference clips are to it, how its decoder is
trained, and that it differentiates the model, ``register``'s keywords say (``Traits``). An option
``waveform`` or ``spectrogram`` is given the clips' own. Outside this package,
``register("<name>")(function)`` does. The function gets a model in eval mode without parameter gradients, its
own copy of ``db``, gradients enabled, and checked arguments.
"""

from __future__ import annotations

from .registry import METHODS, Found, register

__all__ = ["METHODS", "Found", "register"]
