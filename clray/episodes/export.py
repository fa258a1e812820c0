"""What is kept of a trial beside its record: its network as the official code saves one, and what it looks at."""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clray.divergence import NotFinite, all_finite
from clray.episodes import models
from clray.episodes.learner import as_episode
from clray.episodes.models import Network

if TYPE_CHECKING:
    from clray.episodes.benchmarks import Vocabulary
    from clray.episodes.episode_training import EpisodeTraining

LONGEST_WRITTEN = 50
"""``max_length_eval`` of the official code."""
_LOOKED_AT = 8
"""Queries of an example."""


def official_state(network: Network) -> tuple[dict[str, Any], dict[str, Any]]:
    """The encoder's and the decoder's parameters under the official code's names.

    Its meta network has one encoder under two names: ``suppport_embedding``, spelt so, and ``query_embedding``.
    """
    encoder = {}
    for name, value in network.encoder.state_dict().items():
        if name.startswith("commands."):
            inner = name.removeprefix("commands.")
            encoder[f"suppport_embedding.{inner}"] = encoder[f"query_embedding.{inner}"] = value
        else:
            encoder[name.replace("actions.", "output_embedding.", 1)] = value
    decoder = {name.replace("lstm.", "rnn.", 1): value for name, value in network.decoder.state_dict().items()}
    if isinstance(network.encoder, models.Encoder):
        return encoder, decoder
    order = ("suppport_embedding.", "query_embedding.", "output_embedding.", "hidden.")
    return {name: encoder[name] for begin in order for name in encoder if name.startswith(begin)}, decoder


def load_official(network: Network, encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
    """The inverse of ``official_state``.

    Raises:
        RuntimeError: names or shapes are not this network's.
    """
    ours = {
        name.replace("suppport_embedding.", "commands.").replace("output_embedding.", "actions."): value
        for name, value in encoder.items()
        if not name.startswith("query_embedding.")
    }
    network.encoder.load_state_dict(ours)
    network.decoder.load_state_dict({name.replace("rnn.", "lstm.", 1): value for name, value in decoder.items()})


def checkpoint(training: EpisodeTraining) -> bytes:
    """A trial's network in the layout of the official ``net_<episode type>.tar``.

    The languages are tables of symbols and not the official code's objects: ``torch.load`` reads all of it with
    ``weights_only=True``.
    """
    settings, model = training.trial.hyperparameters, training.trial.model
    encoder, decoder = official_state(training.learner.network)
    content = {
        "encoder_state_dict": _on_cpu(encoder),
        "decoder_state_dict": _on_cpu(decoder),
        "input_lang": _language(training.benchmark.commands),
        "output_lang": _language(training.benchmark.actions),
        "episodes_validation": [_in_words(training, index) for index in range(len(training.validation))],
        "episode_type": _OFFICIAL_NAMES.get(training.trial.benchmark["name"], training.trial.benchmark["name"]),
        "emb_size": model["embedding"],
        "dropout": model["dropout"],
        "nlayers": model["layers"],
        "episode": training.learner.episodes,
        "disable_memory": not training.method.memory,
        "disable_recon_loss": not settings.get("support_loss", False),
        "use_attention": settings["attention"],
        "max_length_eval": LONGEST_WRITTEN,
        "num_episodes": settings["episodes"],
        "args": {"clray": training.trial.model_dump(mode="json")},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


_OFFICIAL_NAMES = {"mutual_exclusivity": "ME"}


def _on_cpu(state: dict[str, Any]) -> dict[str, Any]:
    moved: dict[int, Any] = {}
    return {name: moved.setdefault(value.data_ptr(), value.cpu().clone()) for name, value in state.items()}


def _language(vocabulary: Vocabulary) -> dict[str, Any]:
    index = {**vocabulary.number, "SOS": vocabulary.sos, "EOS": vocabulary.eos}
    return {"symbol2index": index, "index2symbol": {v: k for k, v in index.items()}, "n_symbols": len(vocabulary)}


def _in_words(training: EpisodeTraining, index: int) -> dict[str, Any]:
    """A validation episode as lists of words: its support set xs, ys and its queries xq, yq."""
    drawn, benchmark = training.validation[index], training.benchmark
    asked = training.method.asked(drawn, benchmark)
    words: dict[str, Any] = {"identifier": drawn.identifier}
    for names, pairs in ((("xs", "ys"), drawn.support), (("xq", "yq"), asked)):
        if pairs is not None:
            words[names[0]] = [list(benchmark.commands.words(row)) for row in pairs.commands.tolist()]
            words[names[1]] = [list(benchmark.actions.words(row)) for row in pairs.actions.tolist()]
    return words


@torch.no_grad()
def looks(training: EpisodeTraining) -> bytes:
    """Of the first validation episode's first queries: what is written, and the attention of each step to the memory.

    JSON: ``support`` and ``queries`` in words; of a query ``command``, ``target``, ``written`` and, where there is a
    memory, ``attention`` [steps of the command and EOS][items of the support set], null where it is not finite. There
    are no queries where what the network would write is not finite.
    """
    found: dict[str, Any] = {"support": [], "queries": []}
    if training.validation:
        words = _in_words(training, 0)
        found["support"] = [[" ".join(x), " ".join(y)] for x, y in zip(words["xs"], words["ys"], strict=True)]
        with contextlib.suppress(NotFinite):
            found["queries"] = _queries(training, words)
    return json.dumps(found, allow_nan=False).encode()


def _queries(training: EpisodeTraining, words: dict[str, Any]) -> list[dict[str, Any]]:
    drawn, benchmark = training.validation[0], training.benchmark
    query = drawn.query.take(np.arange(min(_LOOKED_AT, len(drawn.query))))
    support = drawn.support if training.method.memory else None
    episode = as_episode(support, query, benchmark, training.device)
    contexts = models.encode(training.learner.network, episode)
    written = models.greedy(training.learner.network, episode, LONGEST_WRITTEN)
    found: list[dict[str, Any]] = []
    for row, length in enumerate(query.command_lengths.tolist()):
        found.append(
            {
                "command": " ".join(words["xq"][row]),
                "target": " ".join(words["yq"][row]),
                "written": " ".join(benchmark.actions.words(written[row].tolist())),
            }
        )
        if contexts.looks is not None:
            seen = contexts.looks[row, :length].cpu().double().round(decimals=4)
            found[-1]["attention"] = seen.tolist() if all_finite([seen]) else None
    return found
