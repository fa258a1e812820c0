"""What a language model writes after a prompt: batched, with a cache of keys and values, the same in any batch.

Tokens are drawn from the ``top_k`` likeliest, as LAMOL's official code does for pseudo-samples and, by default, for
answers too. A prompt has its own random numbers and draws with each the token at which the cumulated probability, in
the order of the ids, passes it. So what is written does not depend on what else is in the batch, as far as rounding
goes; ``generate_plainly`` says the same more slowly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clray.divergence import NotFinite
from clray.language.batching import padded
from clray.language.losses import logits

Uniforms = Callable[[int], "np.ndarray[Any, Any]"]
"""Of a prompt's index its own numbers in [0, 1), as many as tokens may be drawn."""

_NO_TOKEN = -1
"""What ``draw`` gives for a row whose likeliest token has no finite logit."""
_DONE = 8
"""A batch is made smaller when so much of it (an eighth) is done: each time, the cache is copied."""


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Uniforms,
    top_k: int,
    temperature: float,
    stop: int,
    longest: Sequence[int],
) -> list[list[int]]:
    """What the model writes after each prompt, without the prompt and without ``stop``.

    Args:
        model: a causal language model of ``transformers``, on any device, as it stands: in training mode it would draw
            dropout.
        prompts: of at least one token each; prompts of like length go together best.
        uniforms: not called where ``top_k`` is 1, which takes the likeliest token and draws nothing.
        top_k: so many of the likeliest tokens, and others that are as likely as the last of them, can be drawn.
        temperature: what the logits are divided by.
        stop: the token that ends a text.
        longest: the most tokens to draw for each prompt, ``stop`` included.

    Raises:
        NotFinite: the logits of a text that has not ended are not finite: no token can be drawn.
    """
    written: list[list[int]] = [[] for _ in prompts]
    rows = np.array([i for i, most in enumerate(longest) if most > 0], np.int64)
    if not len(rows):
        return written
    most = np.array(longest)[rows]
    numbers = np.zeros((len(rows), most.max()))
    if top_k > 1:
        for own, i, count in zip(numbers, rows.tolist(), most, strict=True):
            own[:count] = uniforms(i)[:count]
    with torch.inference_mode():
        reader = _Reader(model, [prompts[i] for i in rows])
        alive = np.ones(len(rows), bool)
        for step in range(most.max()):
            drawn = draw(reader.logits, numbers[:, step], top_k, temperature)
            tokens = drawn.cpu().numpy()
            if (tokens[alive] == _NO_TOKEN).any():
                raise NotFinite
            drawn = drawn.clamp(min=0)  # texts that have ended are read on until they leave the batch
            alive &= tokens != stop
            for i, token in zip(rows[alive].tolist(), tokens[alive].tolist(), strict=True):
                written[i].append(token)
            alive &= step + 1 < most
            if not alive.any():
                break
            if (~alive).sum() * _DONE >= len(rows):
                kept = np.flatnonzero(alive)
                drawn = drawn[torch.from_numpy(kept).to(drawn.device)]
                reader.keep(kept)
                rows, most, numbers, alive = rows[kept], most[kept], numbers[kept], alive[kept]
            reader.read(drawn)
    return written


def generate_plainly(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Uniforms,
    top_k: int,
    temperature: float,
    stop: int,
    longest: Sequence[int],
) -> list[list[int]]:
    """``generate`` one prompt at a time, without a cache and without padding: obviously right, and slow."""
    device = model.get_input_embeddings().weight.device
    written: list[list[int]] = []
    with torch.inference_mode():
        for i, prompt in enumerate(prompts):
            numbers = uniforms(i) if top_k > 1 else np.zeros(longest[i])
            text = list(prompt)
            for u in numbers[: longest[i]]:
                logits = model(torch.tensor([text], device=device)).logits[:, -1]
                token = int(draw(logits, np.array([u]), top_k, temperature))
                if token == _NO_TOKEN:
                    raise NotFinite
                if token == stop:
                    break
                text.append(token)
            written.append(text[len(prompt) :])
    return written


# --------------------------------------------------------------------------------------------------------------
# Drawing a token


def probabilities(logits: Tensor, top_k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The tokens that can be drawn.

    Args:
        logits: [n, vocabulary].

    Returns:
        Ids [n, candidates] in rising order and their probabilities [n, candidates] in 64 bits. Rows with fewer
        candidates than others are filled up with probability 0.
    """
    count = logits.shape[1]
    wanted = taken = min(top_k, count)
    while True:  # more than top_k, so that all are seen that are as likely as the last: which come first is chance
        taken = min(2 * taken, count)
        values, ids = logits.topk(taken)
        kept = values >= values[:, wanted - 1 : wanted]
        if taken == count or not kept[:, -1].any():
            break
    order = torch.where(kept, ids, count).argsort(1)  # those that are not kept go to the end
    values = torch.where(kept, values.double() / temperature, -torch.inf)
    return ids.gather(1, order), values.softmax(1).gather(1, order)


def draw(logits: Tensor, u: np.ndarray[Any, Any], top_k: int, temperature: float) -> Tensor:
    """[n] one token a row: where the cumulated probability passes ``u`` [n]; the likeliest for a ``top_k`` of 1.

    Among equals the likeliest is the one with the smallest id. A row that has no finite logit, or one that is NaN or
    infinite, gives -1.
    """
    drawable = logits.amax(1).isfinite()
    if top_k == 1:
        return torch.where(drawable, logits.argmax(1), _NO_TOKEN)
    ids, chances = probabilities(logits, top_k, temperature)
    cumulated = chances.cumsum(1)
    passed = cumulated > torch.from_numpy(u).to(cumulated.device)[:, None] * cumulated[:, -1:]
    first = passed.int().argmax(1, keepdim=True)
    return torch.where(drawable, ids.gather(1, first)[:, 0], _NO_TOKEN)


# --------------------------------------------------------------------------------------------------------------
# Reading a token


class _Reader:
    """A model that reads rows of tokens, one more a step; shorter prompts have padding on their left.

    Attributes:
        logits: [rows, vocabulary] of what follows the last tokens.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        device = model.get_input_embeddings().weight.device
        self.model = model
        self.tokens = padded(prompts, 0, left=True).to(device)
        self.mask = padded([[1] * len(prompt) for prompt in prompts], 0, left=True).to(device)
        self.caches = "past_key_values" in inspect.signature(model.base_model.forward).parameters
        self.past: Any = None
        self.logits = self._read(self.tokens)

    def read(self, tokens: Tensor) -> None:
        """Read one more token [rows] of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        if self.caches:
            self.logits = self._read(tokens[:, None])
        else:
            self.tokens = torch.cat([self.tokens, tokens[:, None]], 1)
            self.logits = self._read(self.tokens)

    def _read(self, tokens: Tensor) -> Tensor:
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        caching = {"past_key_values": self.past, "use_cache": True} if self.caches else {}
        found = self.model.base_model(input_ids=tokens, attention_mask=self.mask, position_ids=positions, **caching)
        if self.caches:
            self.past = found.past_key_values
        return logits(self.model, found.last_hidden_state[:, -1])

    def keep(self, rows: np.ndarray[Any, Any]) -> None:
        """Go on with these rows alone."""
        chosen = torch.from_numpy(rows).to(self.mask.device)
        self.mask, self.tokens = self.mask[chosen], self.tokens[chosen]
        if self.past is not None:
            self.past.batch_select_indices(chosen)
