"""The artifacts of a trial: its network in the official code's layout, and an example of its attention."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clray.divergence import NotFinite, all_finite
from clray.episodes import networks
from clray.episodes.benchmarks import Benchmark, Drawn, Pairs, Vocabulary
from clray.episodes.learner import Learner, as_episode
from clray.episodes.networks import Network
from clray.trial import Trial

LONGEST_WRITTEN = 50
"""``max_length_eval`` of the official code."""
_MOST_QUERIES = 8
"""The most queries of an attention example."""


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
    if isinstance(network.encoder, networks.Encoder):
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


Asked = tuple[Drawn, Pairs]
"""An episode, and the pairs of it that the network must answer."""


def checkpoint(trial: Trial, learner: Learner, benchmark: Benchmark, validation: Sequence[Asked]) -> bytes:
    """A trial's network in the layout of the official ``net_<episode type>.tar``.

    The languages are tables of symbols and not the official code's objects: ``torch.load`` reads all of it with
    ``weights_only=True``.
    """
    settings, model = trial.hyperparameters, trial.model
    encoder, decoder = official_state(learner.network)
    content = {
        "encoder_state_dict": _on_cpu(encoder),
        "decoder_state_dict": _on_cpu(decoder),
        "input_lang": _language(benchmark.commands),
        "output_lang": _language(benchmark.actions),
        "episodes_validation": [_in_words(benchmark, *asked) for asked in validation],
        "episode_type": _OFFICIAL_NAMES.get(trial.benchmark["name"], trial.benchmark["name"]),
        "emb_size": model["embedding"],
        "dropout": model["dropout"],
        "nlayers": model["layers"],
        "episode": learner.episodes,
        "disable_memory": not settings.get("memory", False),
        "disable_recon_loss": not settings.get("support_loss", False),
        "use_attention": settings["attention"],
        "max_length_eval": LONGEST_WRITTEN,
        "num_episodes": settings["episodes"],
        "args": {"clray": trial.model_dump(mode="json")},
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


def _in_words(benchmark: Benchmark, drawn: Drawn, asked: Pairs) -> dict[str, Any]:
    """An episode as lists of words: its support set xs, ys and its queries xq, yq."""
    words: dict[str, Any] = {"identifier": drawn.identifier}
    for names, pairs in ((("xs", "ys"), drawn.support), (("xq", "yq"), asked)):
        if pairs is not None:
            words[names[0]] = [list(benchmark.commands.words(row)) for row in pairs.commands.tolist()]
            words[names[1]] = [list(benchmark.actions.words(row)) for row in pairs.actions.tolist()]
    return words


@torch.no_grad()
def attention_example(network: Network, benchmark: Benchmark, validation: Sequence[Asked], memory: bool) -> bytes:
    """The network's answers to the first queries of the first validation episode, and the attention at each step.

    Args:
        memory: True where the network reads the support set.

    Returns:
        JSON: ``support`` and ``queries`` in words. A query has ``command``, ``target``, ``written`` and, where there is
        a memory, ``attention`` [steps of the command and EOS][items of the support set], null where it is not finite.
        There are no queries where the network's output is not finite.
    """
    found: dict[str, Any] = {"support": [], "queries": []}
    if validation:
        drawn, asked = validation[0]
        words = _in_words(benchmark, drawn, asked)
        found["support"] = [[" ".join(x), " ".join(y)] for x, y in zip(words["xs"], words["ys"], strict=True)]
        with contextlib.suppress(NotFinite):
            found["queries"] = _queries(network, benchmark, drawn, memory, words)
    return json.dumps(found, allow_nan=False).encode()


def _queries(
    network: Network, benchmark: Benchmark, drawn: Drawn, memory: bool, words: dict[str, Any]
) -> list[dict[str, Any]]:
    query = drawn.query.take(np.arange(min(_MOST_QUERIES, len(drawn.query))))
    device = str(next(network.parameters()).device)
    episode = as_episode(drawn.support if memory else None, query, benchmark, device)
    contexts = networks.encode(network, episode)
    written = networks.greedy(network, episode, LONGEST_WRITTEN)
    found: list[dict[str, Any]] = []
    for row, length in enumerate(query.command_lengths.tolist()):
        found.append(
            {
                "command": " ".join(words["xq"][row]),
                "target": " ".join(words["yq"][row]),
                "written": " ".join(benchmark.actions.words(written[row].tolist())),
            }
        )
        if contexts.attention is not None:
            weights = contexts.attention[row, :length].cpu().double().round(decimals=4)
            found[-1]["attention"] = weights.tolist() if all_finite([weights]) else None
    return found
