"""The networks of meta seq2seq learning as in the official code, in their plain form: one step after another.

Two encoders and a decoder, all LSTMs of E units. A support set becomes a memory: keys K [ns, E] are the commands of its
items, values V [ns, E] their actions. At every step e_t of a query the memory answers with
m_t = softmax(e_t K' / sqrt(E)) V, and the decoder reads the contexts c_t = tanh(W [e_t; m_t] + b). Details of the code
that are not in the paper:

- The two directions of an encoder are added, not concatenated; but its second layer reads them concatenated.
- A padded step has e_t = 0, so its attention to the memory is uniform and its context is not zero. The decoder attends
  to padded steps too, so an answer depends a little on the longest query of the episode.
- The decoder begins with the context of the query's last step as h and c of every layer. Without a memory the contexts
  are the e_t, zero where padded, and the decoder begins with the embedding of the whole query.

``clray.episodes.fused`` computes the same faster. The parameters of a ``Network`` are the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clray.divergence import NotFinite, all_finite
from clray.episodes.models import Model

Int = NDArray[np.int64]


class Sequences:
    """Rows of symbols, each ending with EOS and padded with SOS to the longest.

    Attributes:
        tokens: [n, T] int64, on the device of the network that reads them.
        lengths: [n] the lengths with EOS, in numpy.
    """

    def __init__(self, tokens: Int, lengths: Int, device: str = "cpu") -> None:
        self.tokens, self.lengths = torch.from_numpy(tokens).to(device), lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def count(self) -> int:
        """The number of symbols, without padding."""
        return int(self.lengths.sum())

    @property
    def valid(self) -> Tensor:
        """[n, T] True at symbols, False at padding."""
        inside = np.arange(self.tokens.shape[1]) < self.lengths[:, None]
        return torch.from_numpy(inside).to(self.tokens.device)


@dataclass(frozen=True)
class Episode:
    """A support set and queries, as the input of a network.

    Attributes:
        steps: the number of steps to which the queries' contexts are padded: that of the longest query of the whole
            set, where this is only a part of it.
        start: the first symbol that the decoder gets, SOS of the actions.
    """

    support: tuple[Sequences, Sequences] | None
    """The commands and actions of the support set; None for a network without a memory."""
    query: Sequences
    target: Sequences
    start: int
    steps: int


class Encoder(nn.Module):
    """An encoder of symbols to vectors: an embedding and a bidirectional LSTM."""

    def __init__(self, symbols: int, model: Model) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, model.embedding)
        self.lstm = nn.LSTM(model.embedding, model.embedding, model.layers, bidirectional=True)


class MemoryEncoder(nn.Module):
    """The meta network's encoders: one for queries and the support set's commands, and one for its actions."""

    def __init__(self, commands: int, actions: int, model: Model) -> None:
        super().__init__()
        self.commands = Encoder(commands, model)
        self.actions = Encoder(actions, model)
        self.hidden = nn.Linear(2 * model.embedding, model.embedding)


class Decoder(nn.Module):
    """An LSTM that writes actions, with or without attention to the query's contexts."""

    def __init__(self, actions: int, model: Model, attention: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(actions, model.embedding)
        self.lstm = nn.LSTM(model.embedding, model.embedding, model.layers)
        self.concat = nn.Linear(2 * model.embedding, model.embedding) if attention else None
        self.out = nn.Linear(model.embedding, actions)


class Network(nn.Module):
    """Encoder and decoder for one benchmark's vocabularies.

    Args:
        commands, actions: the number of symbols of each, with SOS and EOS.
        memory: False for a plain sequence-to-sequence network without a memory.
        attention: True where the decoder attends to the query's steps.
    """

    def __init__(self, commands: int, actions: int, model: Model, memory: bool = True, attention: bool = True) -> None:
        super().__init__()
        self.model = model
        self.encoder = MemoryEncoder(commands, actions, model) if memory else Encoder(commands, model)
        self.decoder = Decoder(actions, model, attention)


class Dropout:
    """Draws the dropout masks of one update; entries are 0, or 1 / (1 - p).

    Both forms of a network, on any device, draw the same masks in the same order: one row for each symbol, without
    padding.
    """

    def __init__(self, p: float, rng: np.random.Generator, device: str = "cpu") -> None:
        self.p, self.rng, self.device = p, rng, device

    def __call__(self, symbols: int, width: int) -> Tensor | None:
        """The next mask, [symbols, width]; None where nothing is dropped."""
        if self.p == 0:
            return None
        drawn = torch.from_numpy(self.rng.random((symbols, width), dtype=np.float32)).to(self.device)
        return drawn.ge(self.p).float().mul_(1 / (1 - self.p))


Masks = list[Tensor | None]


def masks_of(dropout: Dropout | None, symbols: int, model: Model, directions: int) -> Masks:
    """The masks of a stack of layers: for its embedding, then between its layers."""
    widths = [model.embedding] + [directions * model.embedding] * (model.layers - 1)
    return [dropout(symbols, width) if dropout else None for width in widths]


KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""The parameters of one direction of a layer, with torch's names."""


def cell_weights(lstm: nn.LSTM, layer: int, reverse: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """W_ih [4E, in], W_hh [4E, E] and the sum of both biases [4E] of one direction of a layer."""
    suffix = f"l{layer}" + ("_reverse" if reverse else "")
    ih, hh, bias_ih, bias_hh = (getattr(lstm, f"{kind}_{suffix}") for kind in KINDS)
    return ih, hh, bias_ih + bias_hh


@dataclass(frozen=True)
class Contexts:
    """The encoded queries, as the input of a decoder.

    Attributes:
        by_step: [n, T, E] the contexts.
        message: [n, E] the decoder's first state.
        attention: [n, T, ns] the attention over the memory; None without a memory, and from the fused form.
    """

    by_step: Tensor
    message: Tensor
    attention: Tensor | None = None


# --------------------------------------------------------------------------------------------------------------
# The plain form


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Make one step of an LSTM: x [n, in], h and c [n, E]."""
    ih, hh, bias = weights
    i, f, g, o = (x @ ih.T + h @ hh.T + bias).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _one_direction(
    x: Tensor, valid: Tensor, weights: tuple[Tensor, Tensor, Tensor], reverse: bool
) -> tuple[Tensor, Tensor]:
    """The outputs of all steps [n, T, E], zero where padded, and the last state [n, E]."""
    n, steps, _ = x.shape
    h = c = x.new_zeros(n, weights[1].shape[1])
    outputs = [h] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        here = valid[:, t : t + 1]
        new_h, new_c = lstm_cell(x[:, t], h, c, weights)
        h, c = torch.where(here, new_h, h), torch.where(here, new_c, c)
        outputs[t] = torch.where(here, new_h, 0.0)
    return torch.stack(outputs, dim=1), h


def read(encoder: Encoder, sequences: Sequences, masks: Masks) -> tuple[Tensor, Tensor]:
    """The embeddings of every step [n, T, E] and of the whole sequences [n, E]."""
    valid = sequences.valid
    x = _dropped(encoder.embedding(sequences.tokens), valid, masks[0])
    for layer in range(encoder.lstm.num_layers):
        forth, last = _one_direction(x, valid, cell_weights(encoder.lstm, layer), reverse=False)
        back, first = _one_direction(x, valid, cell_weights(encoder.lstm, layer, reverse=True), reverse=True)
        if layer + 1 < encoder.lstm.num_layers:
            x = _dropped(torch.cat([forth, back], dim=2), valid, masks[layer + 1])
    return forth + back, last + first


def _dropped(x: Tensor, valid: Tensor, mask: Tensor | None) -> Tensor:
    """Multiply ``x`` [n, T, W] by the mask, which has a row for each valid step."""
    if mask is None:
        return x
    full = torch.zeros_like(x)
    full[valid] = mask
    return x * full


def encode(network: Network, episode: Episode, dropout: Dropout | None = None) -> Contexts:
    """Encode the queries."""
    encoder, model = network.encoder, network.model
    if isinstance(encoder, Encoder):
        by_step, whole = read(encoder, episode.query, masks_of(dropout, episode.query.count, model, 2))
        return Contexts(_padded(by_step, episode.steps), whole)
    assert episode.support is not None
    commands, actions = episode.support
    masks = masks_of(dropout, commands.count + episode.query.count, model, 2)
    _, keys = read(encoder.commands, commands, [m if m is None else m[: commands.count] for m in masks])
    e, _ = read(encoder.commands, episode.query, [m if m is None else m[commands.count :] for m in masks])
    _, values = read(encoder.actions, actions, masks_of(dropout, actions.count, model, 2))
    e = _padded(e, episode.steps)
    attention = torch.softmax(e @ keys.T / math.sqrt(model.embedding), dim=2)
    contexts = torch.tanh(encoder.hidden(torch.cat([e, attention @ values], dim=2)))
    last = torch.from_numpy(episode.query.lengths - 1).to(e.device)
    return Contexts(contexts, contexts[torch.arange(len(last), device=e.device), last], attention)


def _padded(by_step: Tensor, steps: int) -> Tensor:
    return nn.functional.pad(by_step, (0, 0, 0, steps - by_step.shape[1]))


class Writer:
    """A decoder that writes step by step.

    Attributes:
        state: h and c of each layer, [n, E] each.
        attention: [n, T] the attention of the last step to the contexts.
    """

    def __init__(self, decoder: Decoder, contexts: Contexts) -> None:
        self.decoder, self.contexts = decoder, contexts
        self.state = [(contexts.message, contexts.message)] * decoder.lstm.num_layers
        self.attention: Tensor | None = None

    def step(self, symbols: Tensor, masks: Masks) -> Tensor:
        """The logits [n, V] of the next symbols, given the previous ones [n]."""
        decoder, by_step = self.decoder, self.contexts.by_step
        x = decoder.embedding(symbols)
        for layer, (h, c) in enumerate(self.state):
            mask = masks[layer]
            x, c = lstm_cell(x if mask is None else x * mask, h, c, cell_weights(decoder.lstm, layer))
            self.state = [*self.state[:layer], (x, c), *self.state[layer + 1 :]]
        if decoder.concat is None:
            return decoder.out(x)
        self.attention = torch.softmax((by_step @ x.unsqueeze(2)).squeeze(2) / math.sqrt(x.shape[1]), dim=1)
        seen = (self.attention.unsqueeze(1) @ by_step).squeeze(1)
        return decoder.out(torch.tanh(decoder.concat(torch.cat([x, seen], dim=1))))


def logits(network: Network, contexts: Contexts, episode: Episode, dropout: Dropout | None = None) -> Tensor:
    """[n, T, V] the logits of the targets' steps, padded ones too, each given the true previous symbols."""
    target, writer = episode.target, Writer(network.decoder, contexts)
    given, found = given_symbols(episode), []
    masks = masks_of(dropout, target.count, network.model, 1)
    full = [None if m is None else _dropped(m.new_ones(*given.shape, m.shape[1]), target.valid, m) for m in masks]
    for t in range(given.shape[1]):
        found.append(writer.step(given[:, t], [None if m is None else m[:, t] for m in full]))
    return torch.stack(found, dim=1)


def given_symbols(episode: Episode) -> Tensor:
    """[n, T] the decoder's input at each step: SOS, then the target without its end."""
    tokens = episode.target.tokens
    return torch.cat([torch.full_like(tokens[:, :1], episode.start), tokens[:, :-1]], dim=1)


def loss(network: Network, episode: Episode, dropout: Dropout | None = None) -> Tensor:
    """The mean cross-entropy over all symbols of all targets, with EOS and without padding."""
    found = logits(network, encode(network, episode, dropout), episode, dropout)
    valid = episode.target.valid
    return cross_entropy(found[valid], episode.target.tokens[valid])


@torch.no_grad()
def greedy(network: Network, episode: Episode, limit: int) -> Int:
    """[n, limit] the symbols that the network writes, always the most likely one."""
    return np.stack([*greedy_steps(network, encode(network, episode), episode, limit)], axis=1)


def greedy_steps(network: Network, contexts: Contexts, episode: Episode, limit: int) -> Iterator[Int]:
    """The next symbols [n], ``limit`` times.

    Raises:
        NotFinite: their logits are not finite.
    """
    writer = Writer(network.decoder, contexts)
    symbols = torch.full((len(episode.query),), episode.start, device=contexts.message.device)
    for _ in range(limit):
        found = writer.step(symbols, [None] * len(writer.state))
        if not all_finite([found]):
            raise NotFinite
        symbols = found.argmax(dim=1)
        yield symbols.cpu().numpy()


def right(network: Network, episode: Episode, end: int, limit: int = 50) -> NDArray[np.bool_]:
    """[n] True where the network writes exactly the target, up to EOS, within ``limit`` symbols.

    Raises:
        NotFinite: the network's logits are not finite.
    """
    written, tokens = greedy(network, episode, limit), episode.target.tokens.cpu().numpy()
    found = []
    for row, wanted, length in zip(written.tolist(), tokens.tolist(), episode.target.lengths, strict=True):
        found.append(end in row and row[: row.index(end) + 1] == wanted[:length])
    return np.array(found)
