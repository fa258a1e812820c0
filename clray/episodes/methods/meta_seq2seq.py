"""Meta sequence-to-sequence learning (Lake 2019, arXiv 1906.05381), as its official code runs it (``train.py``).

In every episode words mean something else, and a support set shows what. The network keeps the support set in a memory,
not in its weights; trained over thousands of episodes, it learns to use new meanings from the few examples it is given.
One episode is one update on its queries. The support set is asked as well (the support loss): the code appends it to
the queries, so that it weighs by its number of symbols. The paper's ablations are switches here.
"""

from __future__ import annotations

from clray.episodes.benchmarks import Benchmark, Drawn, Pairs
from clray.episodes.learner import EpisodeMethod, UpdateSettings
from clray.episodes.models import Model, Network


class MetaSeq2seq(EpisodeMethod):
    """Learns to learn: the network of ``clray.episodes.models`` on an episode's queries, and on its support set."""

    class Settings(UpdateSettings):
        memory: bool = True
        """Whether the network reads the support set (official ``--disable_memory``). Without, it is a standard
        sequence-to-sequence network, which cannot know what words mean in this episode."""
        attention: bool = True
        """Whether the decoder attends to the query's steps (``--disable_attention``)."""
        support_loss: bool = True
        """Whether the support set is asked as well (``--disable_recon_loss``)."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.memory = settings.memory

    def network(self, commands: int, actions: int, model: Model) -> Network:
        return Network(commands, actions, model, self.settings.memory, self.settings.attention)

    def asked(self, drawn: Drawn, benchmark: Benchmark) -> Pairs:
        if not self.settings.support_loss or drawn.support is None:
            return drawn.query
        return drawn.query.followed_by(drawn.support, (benchmark.commands.sos, benchmark.actions.sos))
