"""Generation of text by a language model: in batches, with a cache of keys and values.

Tokens are drawn from the ``top_k`` most likely ones, as LAMOL's official code does for pseudo-samples and, by default,
for answers. Each prompt has its own random numbers; a number draws the token at which the cumulated probability, in the
order of the ids, passes it. So a text does not depend on the rest of its batch, apart from rounding.
``generate_plainly`` computes the same more slowly.
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
"""Gives the random numbers in [0, 1) of a prompt, by its index: one for each token that may be drawn."""

_NO_TOKEN = -1
"""The result of ``draw`` for a row whose most likely token has no finite logit."""
_DONE = 8
"""Finished rows leave a batch when they are at least one in so many: the cache is copied each time."""


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: Uniforms,
    top_k: int,
    temperature: float,
    stop: int,
    longest: Sequence[int],
) -> list[list[int]]:
    """The text that the model writes after each prompt, without the prompt and without ``stop``.

    Args:
        model: a causal language model of ``transformers``, on any device, in evaluation mode: in training mode it draws
            dropout.
        prompts: at least one token each; prompts of similar length are processed fastest.
        uniforms: the random numbers; not called where ``top_k`` is 1, which takes the most likely token.
        top_k: a token is drawn from so many of the most likely ones, and from those as likely as the last of them.
        temperature: the logits are divided by it.
        stop: the token that ends a text.
        longest: the most tokens to draw for each prompt, with ``stop``.

    Raises:
        NotFinite: the logits of an unfinished text are not finite, so no token can be drawn.
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
            drawn = drawn.clamp(min=0)  # finished texts are processed until they leave the batch
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
    """``generate`` one prompt at a time, without a cache and without padding: simple and slow, as a reference."""
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
        candidates than others are padded with probability 0.
    """
    count = logits.shape[1]
    wanted = taken = min(top_k, count)
    while True:  # more than top_k, to find all tokens as likely as the last one: topk returns ties in any order
        taken = min(2 * taken, count)
        values, ids = logits.topk(taken)
        kept = values >= values[:, wanted - 1 : wanted]
        if taken == count or not kept[:, -1].any():
            break
    order = torch.where(kept, ids, count).argsort(1)  # the others go to the end
    values = torch.where(kept, values.double() / temperature, -torch.inf)
    return ids.gather(1, order), values.softmax(1).gather(1, order)


def draw(logits: Tensor, u: np.ndarray[Any, Any], top_k: int, temperature: float) -> Tensor:
    """[n] one token for each row: the one at which the cumulated probability passes ``u`` [n].

    With a ``top_k`` of 1 it is the most likely token; of equally likely ones that with the smallest id. A row without a
    finite logit, or with one that is NaN or plus infinity, gives -1.
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
    """A model that processes rows of tokens, one more token at each step; shorter prompts are padded on the left.

    Attributes:
        logits: [rows, vocabulary] of the tokens that follow.
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
        """Process one more token of each row, [rows]."""
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
        """Go on with only these rows."""
        chosen = torch.from_numpy(rows).to(self.mask.device)
        self.mask, self.tokens = self.mask[chosen], self.tokens[chosen]
        if self.past is not None:
            self.past.batch_select_indices(chosen)
