"""Meta sequence-to-sequence learning (Lake 2019, arXiv 1906.05381), as in its official code (``train.py``).

Words have different meanings in every episode, and a support set shows them. The network keeps the support set in a
memory, not in its weights; over thousands of episodes it learns to use new meanings from the few examples of the set.
One episode is one update on its queries. The network must also answer the support set (the support loss): the code
appends it to the queries, so its weight is its number of symbols. The paper's ablations are settings here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.episodes.benchmarks import Benchmark, Drawn, Pairs
from clray.episodes.methods.base import EpisodeMethod, UpdateSettings
from clray.episodes.models import Model

if TYPE_CHECKING:
    from clray.episodes.networks import Network


class MetaSeq2seq(EpisodeMethod):
    """Meta seq2seq: the network of ``clray.episodes.networks`` learns an episode's queries and its support set."""

    class Settings(UpdateSettings):
        memory: bool = True
        """True where the network reads the support set (official ``--disable_memory``). Otherwise it is a standard
        sequence-to-sequence network, which cannot know the meanings of this episode."""
        attention: bool = True
        """True where the decoder attends to the query's steps (``--disable_attention``)."""
        support_loss: bool = True
        """True to answer the support set as well (``--disable_recon_loss``)."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.memory = settings.memory

    def network(self, commands: int, actions: int, model: Model) -> Network:
        from clray.episodes.networks import Network

        return Network(commands, actions, model, self.settings.memory, self.settings.attention)

    def asked(self, drawn: Drawn, benchmark: Benchmark) -> Pairs:
        if not self.settings.support_loss or drawn.support is None:
            return drawn.query
        return drawn.query.followed_by(drawn.support, (benchmark.commands.sos, benchmark.actions.sos))
