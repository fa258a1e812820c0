"""The two losses of LAMOL on a minibatch: of the answer after its question, and of the whole text.

As in the code of Sun, Ho and Lee (2020): the cross entropy has a weight for each token of the vocabulary and is
averaged over a minibatch's targets with these weights. ``eager`` is the plain form: two forward passes over padded
rows, with logits at every position. ``fused`` computes the same in one forward pass over the rows of both losses, with
logits only at targets; rows are not padded where that is cheaper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, embedding, linear, scaled_dot_product_attention

FILL = -1
"""The value in a list of targets where there is no target."""

Rows = Sequence[Sequence[int]]


class Batch(NamedTuple):
    """Rows of tokens; each list has one row for each example.

    Attributes:
        cqa: context, question, ``__ans__`` and the answer.
        Y: the target at each position of ``cqa``, -1 before the answer.
        gen_X: the generation token, then the same as ``cqa``.
        gen_Y: the target at each position of ``gen_X``.
    """

    cqa: Rows
    Y: Rows
    gen_X: Rows
    gen_Y: Rows

    @property
    def count(self) -> int:  # type: ignore[override]
        """The number of examples. (It hides ``tuple.count``.)"""
        return len(self.cqa)


def weights(vocabulary_size: int, ans: int | list[int], answer_weight: float = 5.0, device: Any = "cpu") -> Tensor:
    """[vocabulary_size] the weight of each token as a target: ``answer_weight`` for ``__ans__``, else 1.

    Args:
        ans: the id of ``__ans__``, or the ids of all tokens with this weight (``__sep__`` too, where it is used).
    """
    every = torch.ones(vocabulary_size, device=device)
    every[ans] = answer_weight
    return every


# ---- the plain form


def eager(model: Any, batch: Batch, weights: Tensor, lm_lambda: float | None) -> tuple[Tensor, Tensor]:
    """The losses in their plain form, with which the other form is compared.

    Args:
        model: a causal language model of ``transformers``.
        weights: [V] the weight of each token as a target.
        lm_lambda: the factor of the second loss; None leaves it out.

    Returns:
        The loss of the answers and the loss of the texts, scalars; zero for one that is left out.
    """
    qa = _padded_loss(model, batch.cqa, batch.Y, weights)
    if lm_lambda is None:
        return qa, qa.new_zeros(())
    return qa, lm_lambda * _padded_loss(model, batch.gen_X, batch.gen_Y, weights)


def _padded_loss(model: Any, rows: Rows, targets: Rows, weights: Tensor) -> Tensor:
    device = model.get_input_embeddings().weight.device
    # Rows are padded at their ends, with any token: no earlier position attends to them.
    logits = model(input_ids=_padded(rows, 0).to(device), use_cache=False).logits
    wanted = _padded(targets, FILL).to(device)
    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight=weights, ignore_index=FILL)


def _padded(rows: Rows, fill: int) -> Tensor:
    """[n, longest] the rows, padded with ``fill``."""
    out = np.full((len(rows), max(map(len, rows))), fill)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(out)


# ---- the fast form


def fused(model: Any, batch: Batch, weights: Tensor, lm_lambda: float | None) -> tuple[Tensor, Tensor]:
    """The same losses as ``eager``, computed faster.

    On a CPU the gradients of the embeddings are added directly to their ``grad``, which avoids new memory of the
    vocabulary's size. So call ``backward()`` on the losses, not ``torch.autograd.grad``, and between updates
    ``zero_grad(set_to_none=False)``, which keeps the memory.
    """
    rows, targets = list(batch.cqa), list(batch.Y)
    if lm_lambda is not None:
        rows += batch.gen_X
        targets += batch.gen_Y
    wanted = _flat(targets)
    places = np.flatnonzero(wanted != FILL)
    chosen = torch.from_numpy(wanted[places]).to(weights.device, non_blocking=True)
    each = _cross_entropy(model, hidden_at(model, rows, places), chosen)
    share = weights[chosen]
    answers = int(np.searchsorted(places, sum(map(len, batch.cqa))))
    qa, lm = (each * share).split([answers, len(places) - answers])
    qa_total, lm_total = share.split([answers, len(places) - answers])
    if lm_lambda is None:
        return qa.sum() / qa_total.sum(), qa.new_zeros(())
    return qa.sum() / qa_total.sum(), lm_lambda * lm.sum() / lm_total.sum()


def answer_logits(model: Any, batch: Batch) -> Tensor:
    """[n, V] the logits of each answer's first token, which are at ``__ans__``."""
    ends = [next(place for place, token in enumerate(row) if token != FILL) for row in batch.Y]
    rows = [row[: end + 1] for row, end in zip(batch.cqa, ends, strict=True)]
    places = np.array(list(accumulate(map(len, rows)))) - 1
    return logits(model, hidden_at(model, rows, places))


def hidden_at(model: Any, rows: Rows, places: np.ndarray) -> Tensor:
    """[m, width] the last hidden states at some positions.

    Args:
        places: [m] int64, positions counted through all rows, one row after the other.
    """
    weight = model.get_input_embeddings().weight
    lengths = [len(row) for row in rows]
    tokens = _flat(rows)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    inside = np.arange(len(tokens)) - starts
    if _packs(model, lengths):
        with _packed_attention(model):
            ids = torch.from_numpy(tokens).to(weight.device, non_blocking=True).unsqueeze(0)
            positions = torch.from_numpy(inside).to(weight.device, non_blocking=True).unsqueeze(0)
            states = _body(model, ids, position_ids=positions, row_lengths=Lengths(lengths, weight.device))
    else:
        longest = max(lengths)
        begins = np.repeat(np.arange(len(rows)) * longest, lengths)
        grid = np.zeros(len(rows) * longest, np.int64)
        grid[begins + inside] = tokens
        places = (begins + inside)[places]
        ids = torch.from_numpy(grid).to(weight.device, non_blocking=True).view(len(rows), longest)
        states = _body(model, ids)
    found = torch.from_numpy(places).to(weight.device, non_blocking=True)
    return states.flatten(0, 1).index_select(0, found)


def _flat(rows: Rows) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), np.int64, sum(map(len, rows)))


def _body(model: Any, ids: Tensor, **given: Any) -> Tensor:
    """[n, longest, width] the last hidden states."""
    table = model.get_input_embeddings()
    if model.config.model_type in LIKE_GPT2 and table.weight.device.type == "cpu" and table.padding_idx is None:
        given["inputs_embeds"] = _Lookup.apply(table.weight, ids)
    else:
        given["input_ids"] = ids
    return model.base_model(use_cache=False, **given).last_hidden_state


def logits(model: Any, hidden: Tensor) -> Tensor:
    """[m, V] the logits of last hidden states [m, width], with the last steps that some architectures add.

    They are in 32 bits in any precision: the logits of a pretrained GPT-2 are around -100, where bfloat16 has steps of
    a half.
    """
    config = model.config.get_text_config()
    with torch.autocast(hidden.device.type, enabled=False):
        logits = model.get_output_embeddings()(hidden.float())
    if getattr(config, "logit_scale", None) is not None:  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:  # Granite
        logits = logits / config.logits_scaling
    if getattr(config, "final_logit_softcapping", None) is not None:  # Gemma
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits


# ---- rows without padding

LIKE_GPT2 = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose rows may be packed one after the other: their tokens interact only in the attention, which is
replaced by an attention inside each row. Rows of others are padded."""

_PACKED = "clray_rows"
"""The name of the replaced attention in ``transformers``."""


class Lengths:
    """The lengths of packed rows.

    Attributes:
        rows: the length of each row.
        grid: [T] int64, the position of each token when rows are padded to the longest.
    """

    def __init__(self, rows: list[int], device: torch.device) -> None:
        self.rows, self.device = rows, device
        self._grid: Tensor | None = None

    @property
    def grid(self) -> Tensor:
        if self._grid is None:
            gaps = np.arange(len(self.rows)) * max(self.rows) - (np.cumsum(self.rows) - self.rows)
            places = np.arange(sum(self.rows)) + np.repeat(gaps, self.rows)
            self._grid = torch.from_numpy(places).to(self.device, non_blocking=True)
        return self._grid


def _packs(model: Any, lengths: list[int]) -> bool:
    """True to pack rows: where padding costs more than sorting tokens for the attention."""
    config = model.config
    if (
        config.model_type not in LIKE_GPT2
        or config._attn_implementation != "sdpa"
        or getattr(config, "sliding_window", None) is not None
        or getattr(model.base_model, "gradient_checkpointing", False)  # it calls the attention again, after this pass
    ):
        return False
    padded, tokens = len(lengths) * max(lengths), sum(lengths)
    if model.get_input_embeddings().weight.device.type == "cpu":
        return padded > tokens
    # On an accelerator the time of a small minibatch is that of its kernel launches, and sorting needs more of them.
    return padded - tokens > 2048


@contextmanager
def _packed_attention(model: Any) -> Iterator[None]:
    from transformers import AttentionInterface

    AttentionInterface.register(_PACKED, _attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = _PACKED
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    row_lengths: Lengths,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row: [1, heads, T, d] to [1, T, heads, d]."""
    options = {"dropout_p": dropout, "is_causal": True, "scale": scaling, "enable_gqa": key.shape[1] != query.shape[1]}
    way = _by_row if query.device.type == "cpu" else _on_grid
    return way(query, key, value, row_lengths, options), None


def _by_row(query: Tensor, key: Tensor, value: Tensor, lengths: Lengths, options: dict[str, Any]) -> Tensor:
    """The attention one row after the other, without copies and padding."""
    parts = zip(*(whole.split(lengths.rows, dim=2) for whole in (query, key, value)), strict=True)
    found = [scaled_dot_product_attention(*part, **options) for part in parts]
    return torch.cat([part.transpose(1, 2) for part in found], dim=1)


def _on_grid(query: Tensor, key: Tensor, value: Tensor, lengths: Lengths, options: dict[str, Any]) -> Tensor:
    """The attention of all rows at once, padded only for it: few kernel launches."""
    rows, longest = len(lengths.rows), max(lengths.rows)

    def spread(whole: Tensor) -> Tensor:
        """[1, heads, T, d] to [rows, heads, longest, d]"""
        line = whole[0].transpose(0, 1)
        grid = line.new_zeros(rows * longest, *line.shape[1:]).index_copy(0, lengths.grid, line)
        return grid.view(rows, longest, *line.shape[1:]).transpose(1, 2)

    out = scaled_dot_product_attention(spread(query), spread(key), spread(value), **options)
    return out.transpose(1, 2).flatten(0, 1).index_select(0, lengths.grid).unsqueeze(0)


# ---- the vocabulary


def _cross_entropy(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """[m] the cross entropy of each target."""
    head = model.get_output_embeddings()
    plain = (
        model.config.model_type in LIKE_GPT2
        and hidden.device.type == "cpu"
        and hidden.dtype == head.weight.dtype == torch.float32
        and getattr(head, "bias", None) is None
        and not torch.is_autocast_enabled("cpu")
    )
    if plain:
        return _CrossEntropy.apply(hidden, head.weight, targets)
    return cross_entropy(logits(model, hidden), targets, reduction="none")


class _Lookup(torch.autograd.Function):
    """A lookup of rows of an embedding [V, d]; its gradient is added to ``weight.grad``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(weight, ids)
        return embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight, ids = ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, None
        _sum_of(weight).index_add_(0, ids.flatten(), gradient.flatten(0, -2))
        return None, None


class _CrossEntropy(torch.autograd.Function):
    """The cross entropy [m] of hidden states [m, d] projected by [V, d]; its gradient is added to ``weight.grad``.

    There is one buffer [m, V] instead of three: it holds exponentials after the forward pass, and the logits' gradient
    after the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        scores = linear(hidden, weight)
        chosen = scores.gather(1, targets.unsqueeze(1))
        top = scores.amax(1, keepdim=True)
        total = scores.sub_(top).exp_().sum(1, keepdim=True)
        ctx.save_for_backward(hidden, weight, targets, scores, total)
        return (total.log() + top - chosen).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        hidden, weight, targets, scores, total = ctx.saved_tensors
        scores.mul_(gradient.unsqueeze(1) / total)
        scores[torch.arange(len(targets), device=targets.device), targets] -= gradient
        to_hidden = scores @ weight if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            _sum_of(weight).addmm_(scores.t(), hidden)
        return to_hidden, None, None


def _sum_of(weight: Tensor) -> Tensor:
    """``weight.grad``, created as zeros where it is missing, so that additions round in the same way."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
