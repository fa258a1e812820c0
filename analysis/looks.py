"""Attention over the memory for example queries: what each word of a command looks at among the support items.

Trials of the track of episodes keep it as ``looks.json``, see ``clray.episodes.export.looks``; nothing of that track is
needed to draw it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, TypeAdapter, model_validator

from clray.analysis import plots
from clray.analysis.aggregate import Run
from clray.analysis.artifacts import first_kept
from clray.metrics import Matrix
from clray.output import visible
from clray.store import Problem, Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "looks.json"
END = "EOS"
_QUERIES, _STEPS, _ITEMS = 3, 22, 20
"""At most so many queries side by side, with so many steps together, over so many support items."""


class Query(BaseModel):
    """A command, its right answer, what the network wrote, and where it has a memory the attention [steps, items]."""

    command: str
    target: str
    written: str
    attention: list[list[float]] | None = None

    @property
    def steps(self) -> list[str]:
        """The words of the command, and its end."""
        return [*self.command.split(), END]


class Looks(BaseModel):
    """A support set, as pairs of a command and its meaning, and queries that were answered with it."""

    support: list[tuple[str, str]]
    queries: list[Query]

    @model_validator(mode="after")
    def _attention_fits(self) -> Looks:
        for i, query in enumerate(self.queries):
            shape = (len(query.steps), len(self.support))
            if query.attention is not None and (
                len(query.attention) != shape[0] or any(len(step) != shape[1] for step in query.attention)
            ):
                raise ValueError(f"queries.{i}.attention: expected {shape[0]} steps over {shape[1]} items")
        return self

    @property
    def drawn(self) -> list[Query]:
        """The queries that are drawn: the first ones with attention that fit side by side; one always does."""
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
        """The places in the support set of the items that are drawn: those that any drawn query looks at most."""
        most = np.max([np.max(query.attention or [], axis=0) for query in self.drawn], axis=0)
        return sorted(np.argsort(-most, kind="stable")[:_ITEMS].tolist())


_FORM = TypeAdapter(Looks)


def read(store: Store, runs: Sequence[Run], problems: list[Problem]) -> tuple[Run, Looks] | None:
    """What the first of a variant's runs that has kept it looks at; None without one, or without a memory."""
    found = first_kept(store, runs, NAME, _FORM, problems)
    return found if found and found[1].drawn else None


@plots.drawing()
def svg(looks: Looks, label: str, key: str = "looks") -> str:
    """Heat maps, one a query: support items from top to bottom, steps of the command from left to right.

    Args:
        label: whose attention it is, for the figure in words.
        key: distinguishes the figure's ids from those of other figures on the same page.
    """
    return plots.svg(_figure(looks), key, alt(looks, label))


def _figure(looks: Looks) -> Figure:
    from matplotlib.figure import Figure

    queries, items = looks.drawn, looks.items
    names = [visible(_cut(f"{command} → {meaning}", 34)) for command, meaning in (looks.support[i] for i in items)]
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
    """On at most three lines below a panel of so many steps."""
    return "\n".join(textwrap.wrap(text, max(14, 5 * steps), max_lines=3, placeholder=" …"))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def alt(looks: Looks, label: str) -> str:
    """The heat maps in words: for each step the item that it looks at most."""
    said = []
    for query in looks.drawn:
        looked = ", ".join(
            f"{step} at {looks.support[int(np.argmax(weights))][0]} ({100 * max(weights):.0f}%)"
            for step, weights in zip(query.steps, query.attention or [], strict=True)
        )
        outcome = "" if query.written == query.target else f", which is not {query.target}"
        said.append(f"{query.command}, answered {query.written}{outcome}: {looked}")
    return f"{label}: attention over {len(looks.support)} support items, where each step looks most; " + "; ".join(said)
