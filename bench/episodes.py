"""Compares one episode of meta seq2seq learning in the official code's way and in clray's: python bench/episodes.py

Both do the same work on the same kind of episodes, in turns, so that other load on the machine slows both alike: draw
an episode, one forward pass with dropout, backward, clip, update. The official way is written here from its description
(docs/papers/metaseq2seq.md): it copies and shuffles all of SCAN for every episode and replaces its placeholders one by
one; it encodes support set and queries separately; it calls the decoder once a step; it uses two Adams. Its report on
five validation episodes takes 50 decoding steps for each, with gradients kept; clray's takes one pass. Times are CPU
seconds of one thread.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clray.episodes import scan  # noqa: E402
from clray.episodes.benchmarks import BENCHMARKS, Benchmark, Drawn, Pairs, draw_allowed  # noqa: E402
from clray.episodes.evaluation import scores  # noqa: E402
from clray.episodes.learner import Learner, as_episode  # noqa: E402
from clray.episodes.methods.meta_seq2seq import MetaSeq2seq  # noqa: E402
from clray.episodes.models import Model  # noqa: E402
from clray.episodes.networks import Dropout, Episode, Network, Sequences  # noqa: E402

WIDTH, LAYERS, P, LIMIT = 200, 2, 0.5, 50


class StepwiseEncoder(nn.Module):
    """An embedding and a library LSTM on packed rows, its two directions added."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, WIDTH)
        self.drop = nn.Dropout(P)
        self.lstm = nn.LSTM(WIDTH, WIDTH, LAYERS, dropout=P, bidirectional=True)

    def forward(self, rows: Sequences) -> tuple[Tensor, Tensor]:
        """Steps [T, n, E] and wholes [n, E]."""
        order = torch.from_numpy(np.argsort(-rows.lengths, kind="stable"))
        lengths = torch.from_numpy(rows.lengths)[order]
        packed = pack_padded_sequence(self.drop(self.embedding(rows.tokens[order].t())), lengths)
        outputs, (state, _) = self.lstm(packed)
        steps, _ = pad_packed_sequence(outputs)
        back = torch.argsort(order)
        steps = (steps[:, :, :WIDTH] + steps[:, :, WIDTH:])[:, back]
        return steps, (state[-2] + state[-1])[back]


class StepwiseNetwork(nn.Module):
    """Both encoders and the decoder; see ``clray.episodes.networks`` for the formulas."""

    def __init__(self, commands: int, actions: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {
                "commands": StepwiseEncoder(commands),
                "actions": StepwiseEncoder(actions),
                "hidden": nn.Linear(2 * WIDTH, WIDTH),
            }
        )
        self.decoder = nn.ModuleDict(
            {
                "embedding": nn.Embedding(actions, WIDTH),
                "drop": nn.Dropout(P),
                "lstm": nn.LSTM(WIDTH, WIDTH, LAYERS, dropout=P),
                "concat": nn.Linear(2 * WIDTH, WIDTH),
                "out": nn.Linear(WIDTH, actions),
            }
        )

    def encode(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """Contexts [n, T, E] and messages [n, E]."""
        assert episode.support is not None
        _, keys = self.encoder["commands"](episode.support[0])
        _, values = self.encoder["actions"](episode.support[1])
        steps, _ = self.encoder["commands"](episode.query)
        steps = steps.transpose(0, 1)
        look = torch.softmax(steps @ keys.t() / math.sqrt(WIDTH), dim=2)
        contexts = torch.tanh(self.encoder["hidden"](torch.cat([steps, look @ values], dim=2)))
        last = torch.from_numpy(episode.query.lengths - 1)
        return contexts, contexts[torch.arange(len(last)), last]

    def step(self, symbols: Tensor, state: tuple[Tensor, Tensor], contexts: Tensor) -> tuple[Tensor, Any]:
        part = self.decoder
        out, state = part["lstm"](part["drop"](part["embedding"](symbols)).unsqueeze(0), state)
        top = out[0]
        look = torch.softmax(torch.bmm(top.unsqueeze(1), contexts.transpose(1, 2)) / math.sqrt(WIDTH), dim=2)
        seen = torch.bmm(look, contexts).squeeze(1)
        return part["out"](torch.tanh(part["concat"](torch.cat([top, seen], dim=1)))), state


class Official:
    """The official loop's way of doing the work."""

    def __init__(self, benchmark: Benchmark, name: str) -> None:
        self.benchmark, self.name = benchmark, name
        self.network = StepwiseNetwork(len(benchmark.commands), len(benchmark.actions))
        self.optimizers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in self._parts()]
        self.rng, self.method = np.random.default_rng(0), MetaSeq2seq(MetaSeq2seq.Settings())
        self.pairs = [[" ".join(words), " ".join(actions)] for words, actions in scan.all_pairs()]

    def _parts(self) -> list[nn.Module]:
        return [self.network.encoder, self.network.decoder]

    def draw(self) -> Drawn:
        """An episode; for SCAN by copying, shuffling and replacing, which is then thrown away for one of clray's."""
        if self.name != "mutual_exclusivity":
            every = copy.deepcopy(self.pairs)
            random.shuffle(every)
            for pair in every[:40]:
                for slot, (word, action) in enumerate(scan.PRIMITIVES.items()):
                    pair[0], pair[1] = pair[0].replace(word, str(slot)), pair[1].replace(action, str(slot))
        return draw_allowed(self.benchmark, self.rng, set())

    def update(self) -> None:
        drawn = self.draw()
        episode = as_episode(drawn.support, self.method.asked(drawn, self.benchmark), self.benchmark, "cpu")
        self.network.train()
        contexts, message = self.network.encode(episode)
        state = (message.repeat(LAYERS, 1, 1), message.repeat(LAYERS, 1, 1))
        tokens = episode.target.tokens
        symbols, found = torch.full((len(tokens),), episode.start), []
        for t in range(tokens.shape[1]):
            logits, state = self.network.step(symbols, state, contexts)
            found.append(logits)
            symbols = tokens[:, t]
        valid = episode.target.valid
        losses = cross_entropy(torch.stack(found, dim=1).flatten(0, 1), tokens.flatten(), reduction="none")
        loss = (losses * valid.flatten()).sum() / valid.sum()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for part in self._parts():
            nn.utils.clip_grad_norm_(part.parameters(), 50.0)
        for optimizer in self.optimizers:
            optimizer.step()
        loss.item()

    def report(self, episodes: list[Drawn]) -> None:
        self.network.eval()
        for drawn in episodes:
            episode = as_episode(drawn.support, self.method.asked(drawn, self.benchmark), self.benchmark, "cpu")
            contexts, message = self.network.encode(episode)
            state = (message.repeat(LAYERS, 1, 1), message.repeat(LAYERS, 1, 1))
            symbols = torch.full((len(episode.query),), episode.start)
            for _ in range(LIMIT):
                logits, state = self.network.step(symbols, state, contexts)
                symbols = logits.argmax(dim=1)


class Ours:
    def __init__(self, benchmark: Benchmark, form: str = "fused") -> None:
        self.benchmark, self.rng = benchmark, np.random.default_rng(0)
        settings = MetaSeq2seq.Settings()
        self.method = MetaSeq2seq(settings)
        network = Network(len(benchmark.commands), len(benchmark.actions), Model())
        self.learner = Learner(network, settings, form, Dropout(P, np.random.default_rng(0)))

    def update(self) -> None:
        drawn = draw_allowed(self.benchmark, self.rng, set())
        self.learner.observe(as_episode(drawn.support, self.method.asked(drawn, self.benchmark), self.benchmark, "cpu"))

    def report(self, episodes: list[Drawn]) -> None:
        for drawn in episodes:
            asked: Pairs = self.method.asked(drawn, self.benchmark)
            scores(self.learner, drawn, asked, self.benchmark, memory=True)


def seconds(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("benchmarks", nargs="*", default=["mutual_exclusivity", "scan_prim_permutation", "scan_length"])
    parser.add_argument("--rounds", type=int, default=8, help="timed rounds of each, after one that is not")
    parser.add_argument("--updates", type=int, default=3, help="updates in a round")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread, CPU milliseconds: median of {given.rounds} rounds in turns")
    for name in given.benchmarks:
        benchmark = BENCHMARKS[name](name=name).build()
        validation = benchmark.validation(np.random.default_rng(1))
        sides: list[Official | Ours] = [Official(benchmark, name), Ours(benchmark)]
        for what, count in (("an update", given.updates), ("a report", 1)):
            times: list[list[float]] = [[], []]
            for _ in range(given.rounds + 1):
                for side, kept in zip(sides, times, strict=True):
                    work = side.update if what == "an update" else partial(side.report, validation)
                    kept += [seconds(work) for _ in range(count)]
            official, ours = (1000 * statistics.median(kept[count:]) for kept in times)
            print(f"{name:24} {what:10} official {official:8.1f}   clray {ours:8.1f}   {official / ours:5.2f} times")


if __name__ == "__main__":
    main()
