"""The weights of a finished trial, for ``keep: [weights]``: a torch state dict, and a description of its network.

    facts = json.load(open("weights.json"))
    net = network(facts)
    net.load_state_dict(torch.load("weights.pt", weights_only=True))

The perceptrons of methods that learn from one example at a time are kept under the names of the torch module ``mlp``
(``clray.vision.networks.mlp``), so that all weights are loaded alike. A method with a network for each task has a
``torch.nn.ModuleList``. Only networks are kept: no optimizer, no memory, no teacher of a method.

Nothing here changes a number: weights are read after the trial's last measurement.
"""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from clray import own_code
from clray.errors import DataError
from clray.track_interface import KEPT_FILES
from clray.trial import Trial
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.methods import METHODS
from clray.vision.networks import NETWORKS
from clray.vision.networks.heads import Cosine, Projection

if TYPE_CHECKING:
    from clray.vision.trial import VisionTraining

FORMAT = 1
_WEIGHTS, _FACTS = KEPT_FILES["weights"]


def weights(training: VisionTraining, about: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that keep a trial's weights, by name: ``weights.pt`` and ``weights.json``.

    Args:
        about: further facts for ``weights.json``, such as the trial's id and the digest of its code.
    """
    trial = training.trial
    of = _perceptrons if METHODS[trial.method].learner_kind == "perceptron" else _module
    state, described = of(training)
    facts = {
        "format": FORMAT,
        **about,
        "trial": trial.model_dump(mode="json"),
        "engine": training.facts.get("engine"),
        "network": described,
        "inputs": _inputs(trial),
        "logits": [list(experience.logits) for experience in training.stream.experiences],
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return {_WEIGHTS: buffer.getvalue(), _FACTS: json.dumps(facts, indent=1).encode() + b"\n"}


def network(facts: Mapping[str, Any], folder: str | os.PathLike[str] | None = None) -> Any:
    """The network that ``weights.json`` describes, a torch module with new weights; ``load_state_dict`` takes the kept.

    Where the method has a network for each task, a ``torch.nn.ModuleList`` of them.

    Args:
        facts: the content of ``weights.json``.
        folder: the one that holds the file of a network of one's own (``clray.own_code``).

    Raises:
        DataError: it describes no network, or one with a part of a class that only its method can make.
        OwnCodeError: the network is in a file of one's own, and that file or its class is not in ``folder``.
    """
    if facts.get("format") != FORMAT:
        raise DataError(f"{_FACTS}: its format is {facts.get('format')!s:.50}, this clray reads {FORMAT}")
    try:
        told = facts["network"]
        settings = {**told["settings"], "name": _known(told["settings"]["name"], folder)}
        told = {**told, "settings": settings}
        made = [_built(told) for _ in range(told["count"] or 1)]
        for path, part in told["parts"].items():
            parent, _, name = path.rpartition(".")
            for net in made:
                setattr(net.get_submodule(parent), name, _part(path, part))
    except (KeyError, TypeError, AttributeError, ValueError, ImportError) as error:
        raise DataError(f"{_FACTS}: it describes no network: {type(error).__name__}: {error}") from None
    return nn.ModuleList(made) if told["count"] else made[0]


def _known(name: str, folder: str | os.PathLike[str] | None) -> str:
    """The name under which a network is found here: that of a file of one's own is known once its folder is given."""
    if not own_code.is_reference(name) or not own_code.is_file_reference(name):
        return name
    if folder is not None:
        return own_code.declared(f"./{name.rpartition('/')[2]}", Path(folder))
    try:
        own_code.find(name)
    except own_code.OwnCodeError:
        raise DataError(
            f"{_FACTS}: the network {name} is in a file of one's own: network(facts, FOLDER), with the folder of "
            f"{name.rpartition('/')[2].partition(':')[0]}"
        ) from None
    return name


def _built(told: Mapping[str, Any]) -> nn.Module:
    return NETWORKS[told["settings"]["name"]](**told["settings"]).build(told["shape"], told["outputs"])  # type: ignore[return-value]


def _part(path: str, told: Mapping[str, Any]) -> nn.Module:
    """A part that a method has put into the network."""
    if told["settings"] is None:
        raise DataError(
            f"{_FACTS}: the part {path!r} of the network is a {told['class']}, which only its method makes: build the "
            f"network by {NETWORKS.package}, and load the weights with strict=False"
        )
    module, _, name = told["class"].partition(":")
    return getattr(importlib.import_module(module), name)(**told["settings"])


def _described(settings: Mapping[str, Any], shape: Sequence[int], outputs: int, count: int | None = None) -> Any:
    """The description of a network for ``network``.

    Args:
        count: the number of networks where there is one for each task, else None.
    """
    name = settings["name"]
    return {
        "class": name if own_code.is_reference(name) else f"{NETWORKS.module_of(name)}:{NETWORKS[name].__qualname__}",
        "settings": dict(settings),
        "shape": list(shape),
        "outputs": outputs,
        "count": count,
        "parts": {},
    }


# ----------------------------------------------------------------------------------------------------------------------
# Torch modules


def _module(training: VisionTraining) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a learner's module on the CPU, and its description."""
    module, stream = training.learner.module, training.stream
    settings = dict(training.trial.model)
    if settings.get("pretrained"):
        settings["pretrained"] = False  # the kept weights take the place of the published ones, which need not be here
    told = _described(settings, stream.shape, stream.outputs)
    with torch.device("meta"):  # no memory, and no draws
        plain = _built(told)
    told["parts"] = {path: _told(part) for path, part in _parts(plain, module)}
    state = module.state_dict()
    for name, value in state.items():
        state[name] = value.detach().cpu().contiguous()
    return state, told


def _parts(plain: nn.Module, trained: nn.Module, above: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts that a method has added to a network, or put in the place of its own: their paths, and they."""
    own = dict(plain.named_children())
    for name, child in trained.named_children():
        former = own.get(name)
        if former is not None and type(former) is type(child):
            if _shapes(former) == _shapes(child):
                continue
            if any(True for _ in child.children()):
                yield from _parts(former, child, f"{above}{name}.")
                continue
        yield f"{above}{name}", child


def _shapes(module: nn.Module) -> dict[str, Any]:
    return {name: value.shape for name, value in module.state_dict().items()}


def _told(part: nn.Module) -> dict[str, Any]:
    """The class of a part and its arguments; None for arguments that are not known."""
    settings: dict[str, Any] | None = None
    name = f"{type(part).__module__}:{type(part).__qualname__}"
    if type(part) is nn.Linear:
        name = "torch.nn:Linear"
        settings = {
            "in_features": part.in_features,
            "out_features": part.out_features,
            "bias": part.bias is not None,
        }
    elif type(part) is Cosine:
        settings = {
            "width": part.L.in_features,
            "outputs": part.L.out_features,
            "scale": part.scale,
            "eps": part.eps,
        }
    elif type(part) is Projection:
        first, last = part.layers[0], part.layers[2]
        settings = {"width": first.in_features, "outputs": last.out_features}
    return {"class": name, "settings": settings}


# ----------------------------------------------------------------------------------------------------------------------
# Perceptrons


def _perceptrons(training: VisionTraining) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights of a method's perceptrons under the names of the module ``mlp``, and its description."""
    state = training.method.state_dict()
    found = _several(state)
    first = found[0] if found is not None else state["weights"]
    hidden = [int(np.shape(weight)[0]) for weight in first[::2]][:-1]
    stream = training.stream
    settings = {"name": "mlp", "hidden": hidden, "dropout": 0.0}
    told = _described(settings, stream.shape, stream.outputs, None if found is None else len(found))
    with torch.device("meta"):
        names = list(_built(told).state_dict())
    if found is None:
        return _named(names, state["weights"]), told
    kept = {f"{i}.{name}": value for i, each in enumerate(found) for name, value in _named(names, each).items()}
    return kept, told


def _several(state: Mapping[str, Any]) -> list[Any] | None:
    """The weights of the network of each task, from a method's state; None for a method with one network."""
    if "inputs" in state:  # an input layer for each task; the network holds that of the task it learned last
        own, shared = state["weights"][:2], state["weights"][2:]
        return [[*(own if task == state["task"] else layer), *shared] for task, layer in enumerate(state["inputs"])]
    return state["weights"] if np.ndim(state["weights"][0][0]) > 1 else None


def _named(names: Sequence[str], layers: Sequence[Any]) -> dict[str, Any]:
    tensors = [torch.as_tensor(np.asarray(layer, np.float32)).clone() for layer in layers]
    return dict(zip(names, tensors, strict=True))


def _inputs(trial: Trial) -> dict[str, Any]:
    """How images are given to the network: numbers from 0 to 1, normalised where the benchmark says so."""
    benchmark: Any = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
    mean, std = getattr(benchmark, "normalisation", (None, None))
    return {"range": [0, 1], "mean": mean, "std": std}
