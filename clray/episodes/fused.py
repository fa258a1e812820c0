"""The fast form of the networks of ``clray.episodes.networks``: the same arithmetic on packed whole sequences.

Nothing is computed for padding. The support set's commands and the queries go through their encoder together. Given the
true symbols, all steps of the decoder are one pass through its LSTM, then one through everything above it. A test is
also one pass: a greedy answer equals the target exactly where, given the target's previous symbols, the most likely
next symbol is always the target's.

On a CPU a layer of an LSTM is ``_Packed``: matrix products take most of its time, and the products for the weights'
gradients, which libraries compute step by step, are one product for all steps here. On a GPU it is cuDNN's.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from clray.divergence import NotFinite, all_finite
from clray.episodes import networks
from clray.episodes.networks import Contexts, Dropout, Encoder, Episode, Int, Masks, Network, Sequences, masks_of


class Packing:
    """The packed places of symbols of rows of unequal length: sorted by step, and the longest row first in each step.

    Attributes:
        sizes: the number of rows of each step, which never grows.
        order: [n] the rows, the longest first.
        symbols: [N] the symbol at each place, counted row by row without padding.
        rows, steps: [N] the row and the step of each place.
        first, last: [n] the places of each row's first and last symbol.
        before: [N - n] the place of the previous symbol, for each place after the first step.
        reverse: [N] for each place, that of the symbol with the same distance from the other end of its row.
    """

    def __init__(self, lengths: Int, device: torch.device) -> None:
        order = np.argsort(-lengths, kind="stable")
        by_rank = lengths[order]
        inside = by_rank[:, None] > np.arange(by_rank[0])
        steps, ranks = np.nonzero(inside.T)
        self.sizes: list[int] = inside.sum(axis=0).tolist()
        begins = np.concatenate([[0], np.cumsum(self.sizes)])
        row_begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        rank = np.argsort(order, kind="stable")

        def put(indices: Int) -> Tensor:
            return torch.from_numpy(indices).to(device)

        self.order = put(order)
        self.symbols = put(row_begins[order[ranks]] + steps)
        self.rows, self.steps = put(order[ranks]), put(steps)
        self.first, self.last = put(rank), put(begins[lengths - 1] + rank)
        later = steps > 0
        self.before = put(begins[steps[later] - 1] + ranks[later])
        self.reverse = put(begins[by_rank[ranks] - 1 - steps] + ranks)


class _Packed(torch.autograd.Function):
    """A layer of one or two LSTMs on packed symbols: the first runs forwards in time, the second backwards.

    The second one gets its symbols in reverse, so that both make a step with the same rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing, initial: Tensor | None, *weights: Tensor) -> Tensor:
        """The outputs [N, E], or those of both directions [N, 2E].

        Args:
            x: [N, in].
            initial: [n, E] the initial h and c, the longest row first; None for zero.
            weights: ih [4E, in], hh [4E, E] and bias [4E] of each direction.
        """
        cells = [weights[begin : begin + 3] for begin in range(0, len(weights), 3)]
        width, count = cells[0][1].shape[1], len(x)
        xs = [x, x.index_select(0, packing.reverse)][: len(cells)]
        gates = x.new_empty(len(cells), count, 4 * width)
        for way, (ih, _, bias) in enumerate(cells):
            torch.addmm(bias, xs[way], ih.t(), out=gates[way])
        h, c, tanh_c = (x.new_empty(len(cells), count, width) for _ in range(3))
        hs, cs, tanh_cs, every = (_by_step(part, packing) for part in (h, c, tanh_c, gates))
        i, f, g, o = (_by_step(gate, packing) for gate in gates.chunk(4, dim=2))
        i_f = _by_step(gates[:, :, : 2 * width], packing)
        old_h = old_c = None if initial is None else initial.unsqueeze(0)
        for t, size in enumerate(packing.sizes):
            if t:
                old_h, old_c = hs[t - 1][:, :size], cs[t - 1][:, :size]
            if old_h is not None:
                for way, (_, hh, _) in enumerate(cells):
                    every[t][way].addmm_(old_h[way], hh.t())
            i_f[t].sigmoid_()
            g[t].tanh_()
            o[t].sigmoid_()
            torch.mul(i[t], g[t], out=cs[t])
            if old_c is not None:
                cs[t].addcmul_(f[t], old_c)
            torch.tanh(cs[t], out=tanh_cs[t])
            torch.mul(o[t], tanh_cs[t], out=hs[t])
        ctx.save_for_backward(*xs, gates, h, c, tanh_c, initial, *weights)
        ctx.packing, ctx.ways = packing, len(cells)
        return h[0] if len(cells) == 1 else torch.cat([h[0], h[1].index_select(0, packing.reverse)], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packing, ways = ctx.packing, ctx.ways
        xs, (gates, h, c, tanh_c, initial, *weights) = ctx.saved_tensors[:ways], ctx.saved_tensors[ways:]
        width, count, n = h.shape[2], h.shape[1], packing.sizes[0]
        dh = grad.new_empty(ways, count, width)
        dh[0] = grad[:, :width]
        if ways == 2:
            torch.index_select(grad[:, width:], 0, packing.reverse, out=dh[1])
        # The factor of each gate's gradient, for all steps at once: the recursion then only scales it.
        i, f, g, o = gates.split(width, dim=2)
        d = torch.empty_like(gates)
        d_i, d_f, d_g, d_o = d.split(width, dim=2)
        torch.mul(g, torch.addcmul(i, i, i, value=-1), out=d_i)
        d_f[:, :n] = 0 if initial is None else initial
        d_f[:, n:] = c.index_select(1, packing.before)
        d_f.mul_(torch.addcmul(f, f, f, value=-1))
        torch.addcmul(i, i * g, g, value=-1, out=d_g)
        torch.mul(tanh_c, torch.addcmul(o, o, o, value=-1), out=d_o)
        through = torch.addcmul(o, o * tanh_c, tanh_c, value=-1)
        dc = torch.zeros_like(dh)
        dhs, dcs, throughs, fs = (_by_step(part, packing) for part in (dh, dc, through, f))
        d_ifgs, d_os = (_by_step(part, packing) for part in (d[:, :, : 3 * width].unflatten(2, (3, width)), d_o))
        every, d_initial = _by_step(d, packing), None
        for t in range(len(packing.sizes) - 1, -1, -1):
            size = packing.sizes[t]
            dcs[t].addcmul_(dhs[t], throughs[t])
            d_ifgs[t].mul_(dcs[t].unsqueeze(2))
            d_os[t].mul_(dhs[t])
            if t:
                for way in range(ways):
                    dhs[t - 1][way, :size].addmm_(every[t][way], weights[3 * way + 1])
                torch.mul(dcs[t], fs[t], out=dcs[t - 1][:, :size])
            elif initial is not None:
                d_initial = torch.addmm(dcs[0][0] * fs[0][0], d[0, :n], weights[1])
        found: list[Tensor | None] = []
        for way in range(ways):
            d_t = d[way].t()
            d_hh = d_t[:, n:] @ h[way].index_select(0, packing.before)
            if initial is not None:
                d_hh.addmm_(d_t[:, :n], initial)
            found += [d_t @ xs[way], d_hh, d[way].sum(0)]
        dx = d[0] @ weights[0]
        if ways == 2:
            dx += (d[1] @ weights[3]).index_select(0, packing.reverse)
        return dx, None, d_initial, *found


def _by_step(x: Tensor, packing: Packing) -> tuple[Tensor, ...]:
    """Split [directions, N, …] into its steps."""
    return x.split(packing.sizes, dim=1)


def _layer(x: Tensor, lstm: torch.nn.LSTM, layer: int, packing: Packing, initial: Tensor | None = None) -> Tensor:
    """The outputs of a layer: [N, E] for the decoder, [N, 2E] for an encoder.

    Args:
        initial: [n, E] the initial state, the longest row first; None for zero.
    """
    if x.is_cuda:
        return _library(x, lstm, layer, packing, initial)
    directions = (False, True) if lstm.bidirectional else (False,)
    weights = [weight for reverse in directions for weight in networks.cell_weights(lstm, layer, reverse)]
    return _Packed.apply(x, packing, initial, *weights)


def _library(x: Tensor, lstm: torch.nn.LSTM, layer: int, packing: Packing, initial: Tensor | None = None) -> Tensor:
    """The outputs of a layer, in both directions where the LSTM has two, by torch's own library."""
    suffixes = [f"l{layer}", f"l{layer}_reverse"] if lstm.bidirectional else [f"l{layer}"]
    weights = [getattr(lstm, f"{kind}_{suffix}") for suffix in suffixes for kind in networks.KINDS]
    if initial is None:
        initial = x.new_zeros(packing.sizes[0], lstm.hidden_size)
    state = initial.expand(len(suffixes), *initial.shape).contiguous()
    sizes = torch.tensor(packing.sizes)
    with warnings.catch_warnings():  # torch warns because a layer's weights are a part of the stack's
        warnings.filterwarnings("ignore", message=".*not part of single contiguous chunk.*")
        return torch._VF.lstm(x, sizes, (state, state), weights, True, 1, 0.0, lstm.training, lstm.bidirectional)[0]


def _read(encoder: Encoder, tokens: Tensor, packing: Packing, masks: Masks) -> Tensor:
    """[N, 2E] both directions of the top layer, for symbols [N] in their rows' order."""
    x = encoder.embedding(tokens)
    if masks[0] is not None:
        x = x * masks[0]
    x = x.index_select(0, packing.symbols)
    for layer in range(encoder.lstm.num_layers):
        x = _layer(x, encoder.lstm, layer, packing)
        if layer + 1 < encoder.lstm.num_layers:
            x = _dropped(x, masks[layer + 1], packing)
    return x


def _dropped(x: Tensor, mask: Tensor | None, packing: Packing) -> Tensor:
    return x if mask is None else x * mask.index_select(0, packing.symbols)


def _whole(outputs: Tensor, packing: Packing, rows: slice) -> Tensor:
    """[n, E] the embeddings of whole sequences: the sum of the last states of both directions."""
    width = outputs.shape[1] // 2
    return outputs[packing.last[rows], :width] + outputs[packing.first[rows], width:]


def _symbols(sequences: Sequences) -> Tensor:
    """[N] all symbols, row by row without padding."""
    return sequences.tokens[sequences.valid]


def encode(network: Network, episode: Episode, dropout: Dropout | None = None) -> Contexts:
    """Encode the queries; see ``networks.encode``."""
    encoder, model, query = network.encoder, network.model, episode.query
    if isinstance(encoder, Encoder):
        packing = Packing(query.lengths, query.tokens.device)
        outputs = _read(encoder, _symbols(query), packing, masks_of(dropout, query.count, model, 2))
        by_step = _summed(outputs)
        padding = by_step.new_zeros(1, by_step.shape[1])
        return Contexts(
            _laid_out(by_step, padding, packing, len(query), episode.steps), _whole(outputs, packing, slice(None))
        )
    assert episode.support is not None
    commands, actions = episode.support
    lengths = np.concatenate([commands.lengths, query.lengths])
    packing = Packing(lengths, query.tokens.device)
    symbols = torch.cat([_symbols(commands), _symbols(query)])
    outputs = _read(encoder.commands, symbols, packing, masks_of(dropout, len(symbols), model, 2))
    written = Packing(actions.lengths, query.tokens.device)
    values = _read(encoder.actions, _symbols(actions), written, masks_of(dropout, actions.count, model, 2))
    keys, values = _whole(outputs, packing, slice(len(commands))), _whole(values, written, slice(None))
    # One row more than there are symbols: that of a padded step, which is the same for all.
    e = torch.cat([_summed(outputs), outputs.new_zeros(1, model.embedding)])
    memory = torch.softmax(e @ keys.T / math.sqrt(model.embedding), dim=1) @ values
    contexts = torch.tanh(encoder.hidden(torch.cat([e, memory], dim=1)))
    by_step = _laid_out(contexts[:-1], contexts[-1:], packing, len(lengths), episode.steps, skip=len(commands))
    return Contexts(by_step, contexts.index_select(0, packing.last[len(commands) :]))


def _summed(outputs: Tensor) -> Tensor:
    width = outputs.shape[1] // 2
    return outputs[:, :width] + outputs[:, width:]


def _laid_out(x: Tensor, padding: Tensor, packing: Packing, rows: int, steps: int, skip: int = 0) -> Tensor:
    """Unpack steps [N, E] to [rows - skip, steps, E], with ``padding`` [1, E] where a row has ended."""
    places = torch.full((rows, max(steps, len(packing.sizes))), len(x), device=x.device)
    places[packing.rows, packing.steps] = torch.arange(len(x), device=x.device)
    return torch.cat([x, padding])[places[skip:, :steps]]


def logits(
    network: Network, contexts: Contexts, episode: Episode, dropout: Dropout | None = None
) -> tuple[Tensor, Packing]:
    """[N, V] the logits of the targets' symbols, packed, each given the true previous symbols."""
    decoder, target = network.decoder, episode.target
    packing = Packing(target.lengths, target.tokens.device)
    masks = masks_of(dropout, target.count, network.model, 1)
    x = decoder.embedding(networks.given_symbols(episode)[target.valid])
    if masks[0] is not None:
        x = x * masks[0]
    x = x.index_select(0, packing.symbols)
    initial = contexts.message.index_select(0, packing.order)
    for layer in range(decoder.lstm.num_layers):
        x = _dropped(x, masks[layer], packing) if layer else x
        x = _layer(x, decoder.lstm, layer, packing, initial)
    if decoder.concat is None:
        return decoder.out(x), packing
    n, steps = target.tokens.shape
    by_step = contexts.by_step
    asked = _laid_out(x, x.new_zeros(1, x.shape[1]), packing, n, steps)
    attention = torch.softmax(asked @ by_step.transpose(1, 2) / math.sqrt(x.shape[1]), dim=2)
    seen = (attention @ by_step)[packing.rows, packing.steps]
    return decoder.out(torch.tanh(decoder.concat(torch.cat([x, seen], dim=1)))), packing


def loss(network: Network, episode: Episode, dropout: Dropout | None = None) -> Tensor:
    """The mean cross-entropy; see ``networks.loss``."""
    found, packing = logits(network, encode(network, episode, dropout), episode, dropout)
    return cross_entropy(found, episode.target.tokens[packing.rows, packing.steps])


@torch.no_grad()
def right(network: Network, episode: Episode, end: int, limit: int = 50) -> NDArray[np.bool_]:
    """[n] True where the network would write exactly the target; see ``networks.right``."""
    found, packing = logits(network, encode(network, episode), episode)
    if not all_finite([found]):
        raise NotFinite
    wrong = found.argmax(dim=1) != episode.target.tokens[packing.rows, packing.steps]
    counts = torch.zeros(len(episode.target), device=found.device).index_add_(0, packing.rows, wrong.float())
    return (counts == 0).cpu().numpy() & (episode.target.lengths <= limit)


@torch.no_grad()
def greedy(network: Network, episode: Episode, end: int, limit: int) -> Int:
    """[n, at most limit] the symbols written, until every row has ended."""
    contexts = encode(network, episode)
    written, ended = [], np.zeros(len(episode.query), bool)
    for symbols in networks.greedy_steps(network, contexts, episode, limit):
        written.append(symbols)
        ended |= symbols == end
        if ended.all():
            break
    return np.stack(written, axis=1)
