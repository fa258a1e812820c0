"""A standard sequence-to-sequence network on one of SCAN's own splits: the baseline of meta seq2seq learning.

The official code has no loop for it: its "standard" network is the network without a memory on episodes
(``meta_seq2seq`` with ``memory: false``). This method uses that network, its optimizer and its number of updates on
batches of a split's own training pairs. It is clray's interpretation of the baseline, not a published protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.episodes.benchmarks import Benchmark, Drawn, Pairs
from clray.episodes.methods.base import EpisodeMethod, UpdateSettings
from clray.episodes.models import Model

if TYPE_CHECKING:
    from clray.episodes.networks import Network


class Seq2seq(EpisodeMethod):
    """Standard learning of a training set; an episode is a batch of it."""

    class Settings(UpdateSettings):
        attention: bool = True
        """True where the decoder attends to the command's steps."""

    kind = "split"
    memory = False

    def network(self, commands: int, actions: int, model: Model) -> Network:
        from clray.episodes.networks import Network

        return Network(commands, actions, model, memory=False, attention=self.settings.attention)

    def asked(self, drawn: Drawn, benchmark: Benchmark) -> Pairs:
        return drawn.query
