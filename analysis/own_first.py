"""The runs of a sweep from two places: the store's own, and the reference runs that ship with clray.

A comparison of variants takes the store's run of each trial, and the reference run where the store has none. So a
user's new variant stands beside baselines that nobody has to run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from clray import reference_runs
from clray.analysis.comparison import Shown
from clray.analysis.gather import Results, filled_up, read, results_of
from clray.data_sets import data_sets
from clray.record import Record
from clray.store import Store
from clray.sweep import Sweep

Note = tuple[str, str]


class Sources:
    """The finished runs of some sweeps, read once.

    Args:
        sweeps: the sweeps that are asked for.
        store: the store with the user's own runs.
        shown: ``own``: the store's alone; ``reference``: those that ship; ``both``: the store's before those that ship.
        is_current: tells if the code here made a record.
    """

    def __init__(
        self, sweeps: Iterable[Sweep], store: Store, shown: Shown, is_current: Callable[[Record], bool] | None = None
    ) -> None:
        declared = {cell.trial.declaration for sweep in sweeps for cell in sweep.cells}
        self._own = results_of([]) if shown == "reference" else read(store, is_current)
        self._reference = results_of([] if shown == "own" else reference_runs.of(declared), is_current)
        self._shown = shown
        self.problems = self._own.problems

    def of(self, sweep: Sweep) -> tuple[Results, list[Note]]:
        """The results for one sweep, and what its reader must know about them.

        Reference runs on other data than the store's are not taken: their numbers are those of another experiment.
        """
        declarations = dict.fromkeys(cell.trial.declaration for cell in sweep.cells)
        own = data_sets(r for d in declarations for r in self._own.finished.get(d, ()))
        fingerprints = list(own[0].fingerprints) if own else None
        results = filled_up(self._own, self._reference, fingerprints)
        others = [
            record
            for declaration in declarations
            for record in self._reference.finished.get(declaration, ())
            if fingerprints is not None and record.data["fingerprint"] not in fingerprints
        ]
        if not others:
            return results, []
        text = f"{len(others)} runs that ship with clray are not used: they are on other data ({data_sets(others)[0]})"
        return results, [("reference", f"{text}; --records reference shows them")]
