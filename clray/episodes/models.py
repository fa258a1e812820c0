"""The settings of the networks of the episodes track. The networks themselves are in ``clray.episodes.networks``.

Nothing here loads torch, so that a sweep is planned quickly.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clray.settings import TrialSettings


class Model(TrialSettings):
    """The sizes of the networks."""

    embedding: Annotated[int, Field(ge=1, le=16_384)] = 200
    """E: the units of every LSTM layer, and the size of every embedding."""
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    """The layers of each encoder and of the decoder."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The dropout rate on the symbols' embeddings and between layers."""
