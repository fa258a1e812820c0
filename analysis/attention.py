"""Draws the attention of example queries over the support items: a heat map for each query.

Trials of the episodes track keep such an example as the artifact ``looks.json``; ``clray.episodes.export`` writes it.
Drawing needs no code of that track.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, TypeAdapter, model_validator

from clray.analysis import plots
from clray.analysis.artifacts import first_artifact
from clray.analysis.runs import Run
from clray.metrics import Matrix
from clray.output import visible
from clray.store import Problem, Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "looks.json"
"""The artifact's name. It is the name in existing stores, so it stays."""
END = "EOS"
_QUERIES, _STEPS, _ITEMS = 3, 22, 20
"""The most queries drawn side by side, the most steps that they have together, and the most support items."""


class Query(BaseModel):
    """A query: a command, its correct answer and the network's answer.

    Attributes:
        attention: [steps, items], the weight of each support item at each step; None for a network without a memory.
    """

    command: str
    target: str
    written: str
    attention: list[list[float]] | None = None

    @property
    def steps(self) -> list[str]:
        """The words of the command, then the end symbol."""
        return [*self.command.split(), END]


class AttentionExample(BaseModel):
    """A support set, as pairs of a command and its meaning, and queries that the network answered with it."""

    support: list[tuple[str, str]]
    queries: list[Query]

    @model_validator(mode="after")
    def _attention_fits(self) -> AttentionExample:
        for i, query in enumerate(self.queries):
            shape = (len(query.steps), len(self.support))
            if query.attention is not None and (
                len(query.attention) != shape[0] or any(len(step) != shape[1] for step in query.attention)
            ):
                raise ValueError(f"queries.{i}.attention: expected {shape[0]} steps over {shape[1]} items")
        return self

    @property
    def drawn(self) -> list[Query]:
        """The queries to draw: the first ones with attention that fit side by side, at least one."""
        found: list[Query] = []
        for query in self.queries if self.support else []:
            if query.attention is None:
                continue
            fits = sum(len(q.steps) for q in [*found, query]) <= _STEPS
            if not found or (fits and len(found) < _QUERIES):
                found.append(query)
        return found

    @property
    def items(self) -> list[int]:
        """The indices of the support items to draw: those with the largest attention weights in the drawn queries."""
        most = np.max([np.max(query.attention or [], axis=0) for query in self.drawn], axis=0)
        return sorted(np.argsort(-most, kind="stable")[:_ITEMS].tolist())


_FORM = TypeAdapter(AttentionExample)


def read(store: Store, runs: Sequence[Run], problems: list[Problem]) -> tuple[Run, AttentionExample] | None:
    """The attention example of a variant's first run that has one; None without one, or without a memory."""
    found = first_artifact(store, runs, NAME, _FORM, problems)
    return found if found and found[1].drawn else None


@plots.drawing()
def svg(example: AttentionExample, label: str, key: str = "looks") -> str:
    """Heat maps, one a query: support items from top to bottom, steps of the command from left to right.

    Args:
        label: the variant's name, for the text that describes the figure.
        key: distinguishes the figure's ids from those of other figures on the same page.
    """
    return plots.svg(_figure(example), key, alt(example, label))


def _figure(example: AttentionExample) -> Figure:
    from matplotlib.figure import Figure

    queries, items = example.drawn, example.items
    names = [visible(_cut(f"{command} → {meaning}", 34)) for command, meaning in (example.support[i] for i in items)]
    steps = [len(query.steps) for query in queries]
    widest = max(map(len, names)) * 0.075 + 0.6
    figure = Figure(figsize=(widest + 0.36 * sum(steps) + 0.4 * len(queries), 1.6 + 0.27 * len(items)))
    figure.set_layout_engine("constrained", w_pad=0.08)
    panels = figure.subplots(1, len(queries), squeeze=False, width_ratios=steps)[0]
    for axes, query in zip(panels, queries, strict=True):
        _draw(axes, query, items)
        plots.ink(axes)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        first = axes is panels[0]
        axes.set_yticks(range(len(items)), names if first else [""] * len(items), parse_math=False)
    plots.colour_scale(panels[-1], share=0.35 / steps[-1])
    return figure


def _draw(axes: Axes, query: Query, items: Sequence[int]) -> None:
    weights: Matrix = 100 * np.array(query.attention).T[items]
    axes.imshow(weights, vmin=0, vmax=100, cmap="viridis", interpolation="none", aspect="auto")
    plots.write_values(axes, np.where(weights < 0.5, np.nan, weights))
    long = any(len(step) > 4 for step in query.steps)
    steps = [visible(step) for step in query.steps]
    axes.set_xticks(range(len(steps)), steps, rotation=90 if long else 0, parse_math=False)
    axes.xaxis.tick_top()
    answer = _folded(f"→ {query.written}", len(query.steps))
    if query.written != query.target:
        answer += "\n" + _folded(f"not {query.target}", len(query.steps))
    axes.set_xlabel(visible(answer), parse_math=False)
    axes.xaxis.label.set_fontsize(8.5)


def _folded(text: str, steps: int) -> str:
    """Wrap a text to at most three lines below a panel with this number of steps."""
    return "\n".join(textwrap.wrap(text, max(14, 5 * steps), max_lines=3, placeholder=" …"))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def alt(example: AttentionExample, label: str) -> str:
    """The heat maps as text: for each step the item with the largest attention weight."""
    said = []
    for query in example.drawn:
        looked = ", ".join(
            f"{step} at {example.support[int(np.argmax(weights))][0]} ({100 * max(weights):.0f}%)"
            for step, weights in zip(query.steps, query.attention or [], strict=True)
        )
        outcome = "" if query.written == query.target else f", which is not {query.target}"
        said.append(f"{query.command}, answered {query.written}{outcome}: {looked}")
    return f"{label}: attention over {len(example.support)} support items, where each step looks most; " + "; ".join(
        said
    )
