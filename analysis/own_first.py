"""The runs of a sweep from two places: the store's own, and the reference runs that ship with clray.

A comparison of variants takes the store's run of each trial, and the reference run where the store has none. So a
user's new variant stands beside baselines that nobody has to run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

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

    def of(self, sweep: Sweep, *others: Sweep) -> tuple[Results, list[Note]]:
        """The results for one sweep, and what its reader must know about them.

        Reference runs on other data than the store's are not taken: their numbers are those of another experiment.

        Args:
            others: more sweeps whose runs the results should have, such as the tuning phase of the first one.
        """
        results, notes = self._own, []
        for each in (sweep, *others):
            declarations = dict.fromkeys(cell.trial.declaration for cell in each.cells)
            finished = {d: found for d in declarations if (found := self._reference.finished.get(d))}
            own = data_sets(r for d in declarations for r in self._own.finished.get(d, ()))
            before, fingerprints = results, list(own[0].fingerprints) if own else None
            results = filled_up(before, replace(self._reference, finished=finished), fingerprints)
            results = replace(results, shipped=before.shipped | results.shipped)
            left = [
                r for of in finished.values() for r in of if fingerprints and r.data["fingerprint"] not in fingerprints
            ]
            if left:
                text = f"{len(left)} runs that ship with clray are not used: they are on other data"
                notes.append(("reference", f"{text} ({data_sets(left)[0]}); --records reference shows them"))
        return results, notes
