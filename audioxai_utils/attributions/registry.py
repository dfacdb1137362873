"""The table of methods, and the checks and cleaning-up that all of them share."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from ..constants import FORMER_NAMES, method_files
from ..models.untouched import recurrent_gradients, untouched
from ..models.wrapping import is_differentiable, shows_layers
from ..numerics import tensor_float32
from .decoder import Recipe

ENGINES = ("fast", "reference")
# options that whoever has the sound gives to each method that takes them
OF_THE_CLIP = ("waveform", "spectrogram")


@dataclass(frozen=True)
class Traits:
    """What a method says of itself, so that nobody has to know its name.

    Attributes
    ----------
    budget : str
        The option that counts the changed copies of a clip it classifies; "" where there is none, or
        where the number is the method's own affair.
    background : bool
        Whether it wants the study's reference clips, as the option ``background``.
    additive : bool
        Whether a clip's values add up to its logit minus the mean logit of ``background``.
    recipe : Recipe, optional
        How the study trains the decoder that the method wants, as the option ``decoder``.
    after : str
        The method whose trained decoder that training starts from; "" for a new one.
    gradients : bool
        Whether it differentiates the model; one that does not takes black boxes, and no gradient needs a
        proof.
    layers : bool
        Whether it looks at the model's inner layers.
    engines : tuple of str
        Names that the option ``engine`` takes.
    one_by_one : bool
        Whether it explains the clips of a call one by one, so that several need little more memory than one
        and share what the call prepares: copies of the model, the references' activations.
    """

    budget: str = ""
    background: bool = False
    additive: bool = False
    recipe: Recipe | None = None
    after: str = ""
    gradients: bool = False
    layers: bool = False
    engines: tuple[str, ...] = ENGINES
    one_by_one: bool = False


class Found(NamedTuple):
    """What a method that keeps sounds itself returns instead of its attribution alone.

    ``sound`` is (batch, samples), what of each clip speaks for the class, at the clip's own level; None where
    no ``waveform`` was given.
    """

    attribution: torch.Tensor
    sound: torch.Tensor | None = None


class Methods(Mapping):
    """Name -> attribution function; a method's module is imported when it is first asked for."""

    def __init__(self, modules: Mapping[str, str], package: str) -> None:
        """``modules`` maps the name of a method to the module of ``package`` that registers it."""
        self._modules, self.package = modules, package
        self._functions: dict[str, Callable] = {}
        self._traits: dict[str, Traits] = {}

    def add(self, name: str, function: Callable, traits: Traits = Traits()) -> None:
        """Enter ``function`` under ``name``; a name that is taken by another function is refused."""
        taken = self._functions.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(f"attribution method {name!r} is registered already, by {taken.__module__}")
        self._functions[name], self._traits[name] = function, traits

    def remove(self, name: str) -> None:
        """Take out a method that was added; ValueError for the package's own, KeyError for an unknown one."""
        if name in self._modules:
            raise ValueError(
                f"method {name!r} is the package's own and stays; only an added one can be removed"
            )
        del self._functions[name], self._traits[name]

    def __getitem__(self, name: str) -> Callable:
        name = FORMER_NAMES.get(name, name)
        if name not in self._functions and name in self._modules:
            importlib.import_module(f"{self.package}.{self._modules[name]}")
        if name not in self._functions:
            raise KeyError(f"method must be one of {', '.join(self)}; got {name!r}")
        return self._functions[name]

    def found(self, name: str, model: nn.Module, db: torch.Tensor, target: torch.Tensor, **options) -> Found:
        """As ``METHODS[name](model, db, target, **options)``, with the sounds that it keeps itself."""
        return self[name].found(model, db, target, **options)

    def traits(self, name: str) -> Traits:
        """What the method says of itself; KeyError for a name that is not known."""
        self[name]  # its module enters it
        return self._traits[FORMER_NAMES.get(name, name)]

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The method's own options by name."""
        return dict(list(inspect.signature(self[name]).parameters.items())[3:])

    def required(self, name: str) -> list[str]:
        """Options without which the method cannot be called, besides ``OF_THE_CLIP``."""
        known = self.options(name)
        return [
            option
            for option in known
            if known[option].default is known[option].empty and option not in OF_THE_CLIP
        ]

    def taken(self, name: str, **values) -> dict:
        """Those of ``values`` that the method has an option for."""
        known = self.options(name)
        return {option: value for option, value in values.items() if option in known}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._modules, *self._functions}))

    def __len__(self) -> int:
        return len({*self._modules, *self._functions})

    def __contains__(self, name: object) -> bool:
        return any(
            each in self._modules or each in self._functions for each in (name, FORMER_NAMES.get(name))
        )


METHODS = Methods(method_files(), __package__)


def register(
    name: str,
    *,
    budget: str = "",
    background: bool = False,
    additive: bool = False,
    recipe: Recipe | None = None,
    after: str = "",
    gradients: bool = False,
    layers: bool = False,
    engines: tuple[str, ...] = ENGINES,
    one_by_one: bool = False,
) -> Callable[[Callable], Callable]:
    """Enter a function in ``METHODS`` with the checks and cleaning-up around it; see :class:`Traits`."""
    traits = Traits(budget, background, additive, recipe, after, gradients, layers, engines, one_by_one)

    def decorate(function: Callable) -> Callable:
        known = list(inspect.signature(function).parameters)[3:]
        for option in (budget, "background" if background else "", "decoder" if recipe else ""):
            if option and option not in known:
                raise TypeError(f"{name} has no option {option!r}; its options are {', '.join(known)}")

        def found(model: nn.Module, db: torch.Tensor, target: torch.Tensor, **options) -> Found:
            _check_options(name, known, options, engines)
            _check_input(model, db, target)
            _check_model(name, traits, model)
            if "engine" not in known:
                options.pop("engine", None)  # one path serves both names
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                untouched(model),
                tensor_float32(False, db.device),
                recurrent_gradients(model, db.device),
            ):
                _check_first_output(name, traits, model, db, target)
                classes = target.detach().to(db.device, torch.long, copy=True)
                result = function(model, db.detach().clone(), classes, **options)
            return _checked_found(name, result, db)

        @functools.wraps(function)
        def method(model: nn.Module, db: torch.Tensor, target: torch.Tensor, **options) -> torch.Tensor:
            return found(model, db, target, **options).attribution

        method.found = found
        METHODS.add(name, method, traits)
        return method

    return decorate


def _check_options(name: str, known: list[str], options: dict, engines: tuple[str, ...]) -> None:
    allowed = [*known, *(() if "engine" in known else ("engine",))]
    for option in options:
        if option not in allowed:
            raise TypeError(f"{name} has no option {option!r}; its options are {', '.join(allowed)}")
    if options.get("engine", "fast") not in (*engines, None):
        raise ValueError(f"engine must be one of {', '.join(engines)}; got {options['engine']!r}")


def _check_input(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module that returns logits; got {type(model).__name__}")
    check_spectrograms("db", db, model)
    if not isinstance(target, torch.Tensor):
        raise TypeError(f"target must be a tensor of class indices; got {type(target).__name__}")
    if target.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        raise TypeError(f"target must hold integers (torch.long); got {target.dtype}")
    if target.shape != db.shape[:1]:
        raise ValueError(
            f"target must have shape ({len(db)},), one class per clip; got {tuple(target.shape)}"
        )
    if int(target.min()) < 0:
        raise ValueError(f"target must be 0 or more; got {int(target.min())}")


def check_spectrograms(argument: str, db: torch.Tensor, model: nn.Module) -> None:
    """Raise unless ``db`` is (n, 1, frequency, time), finite, and of the model's device and dtype."""
    if not isinstance(db, torch.Tensor):
        raise TypeError(f"{argument} must be a tensor (n, 1, frequency, time); got {type(db).__name__}")
    if db.ndim != 4 or db.shape[1] != 1 or 0 in db.shape:
        raise ValueError(f"{argument} must have shape (n, 1, frequency, time); got {tuple(db.shape)}")
    if not db.is_floating_point():
        raise TypeError(f"{argument} must hold floating-point decibels; got {db.dtype}")
    if not bool(torch.isfinite(db).all()):
        raise ValueError(f"{argument} must be finite; it holds NaN or infinity")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    own = (
        None
        if parameter is None
        else (parameter.device, db.dtype if hasattr(model, "casts") else parameter.dtype)
    )
    if own not in (None, (db.device, db.dtype)):
        raise ValueError(
            f"{argument} is {db.dtype} on {db.device} and the model {parameter.dtype} on {parameter.device}; "
            "move one to the other with .to()"
        )


def _check_model(name: str, traits: Traits, model: nn.Module) -> None:
    """Refuse a black box where the method wants more than answers."""
    if traits.gradients and not is_differentiable(model):
        raise ValueError(
            f"{name} differentiates the model, which is a black box; methods that only ask: "
            f"{methods_that_ask()}"
        )
    check_layers(name, model, traits)


def check_layers(name: str, model: nn.Module, traits: Traits | None = None) -> None:
    """Refuse a ScriptModule where a method, whose traits may be given, looks at layers."""
    if (traits or METHODS.traits(name)).layers and not shows_layers(model):
        raise ValueError(
            f"{name} looks at the model's layers, which it does not show; methods that only ask: "
            f"{methods_that_ask()}"
        )


def methods_that_ask() -> str:
    """Names of the methods that only ask for outputs."""
    traits = {name: METHODS.traits(name) for name in METHODS}
    return ", ".join(name for name, each in traits.items() if not (each.gradients or each.layers))


def _check_first_output(
    name: str, traits: Traits, model: nn.Module, db: torch.Tensor, target: torch.Tensor
) -> None:
    """Look at what the model makes of the first clip."""
    if isinstance(model, torch.jit.ScriptModule):  # takes no hooks: asked once more
        _check_output(name, traits, model(db[:1].detach().requires_grad_()), int(target.max()), True)
        return
    done = []

    def look(module, inputs, logits) -> None:  # ``untouched`` takes the hook away
        asked = torch.is_grad_enabled() and isinstance(inputs[0], torch.Tensor) and inputs[0].requires_grad
        if asked in done or True in done:
            return
        done.append(asked)
        _check_output(name, traits, logits, int(target.max()), asked)

    model.register_forward_hook(look)


def _check_output(
    name: str, traits: Traits, logits: torch.Tensor, highest: int, differentiated: bool
) -> None:
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise ValueError(
            f"model must return logits (batch, classes); got {getattr(logits, 'shape', type(logits))}"
        )
    if highest >= logits.shape[1]:
        raise ValueError(
            f"target must be below {logits.shape[1]}, the model's number of classes; got {highest}"
        )
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            "model returns NaN or infinite logits for these spectrograms; it cannot be explained"
        )
    if traits.gradients and differentiated and not logits.requires_grad:
        raise ValueError(
            f"{name} differentiates the model, and its outputs do not depend on its input by a gradient; "
            f"methods that only ask: {methods_that_ask()}"
        )


def _checked_found(name: str, result: torch.Tensor | Found, db: torch.Tensor) -> Found:
    attribution, sound = result if isinstance(result, Found) else (result, None)
    if sound is not None:
        sound = sound.detach()
        if sound.ndim != 2 or len(sound) != len(db) or not bool(torch.isfinite(sound).all()):
            raise ValueError(
                f"{name} must keep finite sounds ({len(db)}, samples), one per clip; got {tuple(sound.shape)}"
            )
    return Found(_checked_result(name, attribution, db), sound)


def _checked_result(name: str, attribution: torch.Tensor, db: torch.Tensor) -> torch.Tensor:
    attribution = attribution.detach().to(db)
    if attribution.shape != db.shape:
        raise ValueError(f"{name} returned shape {tuple(attribution.shape)}, expected {tuple(db.shape)}")
    if not bool(torch.isfinite(attribution).all()):
        raise ValueError(
            f"{name} gave NaN or infinite values; look at the model's gradients and at its input"
        )
    return attribution
