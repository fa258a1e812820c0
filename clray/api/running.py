"""Running trials from Python: in this process, or on Ray."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from clray.api.arguments import Names, Place, Seeds, Settings, opened
from clray.api.arguments import target as target_at
from clray.api.results import Results
from clray.errors import ClrayError
from clray.record import Record

if TYPE_CHECKING:
    from clray.planning import Plan
    from clray.store import Store


class TrialsFailed(ClrayError):
    """Some trials of ``clray.run`` failed; the others are finished and in the store.

    Attributes:
        failed: the reason of each failure, by the trial's id.
        results: the trials that finished.
    """

    def __init__(self, failed: Mapping[str, str], results: Results, first: str) -> None:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        reason = " ".join(next(iter(failed.values())).split())
        super().__init__(f"{first}{more} failed: {reason}; the error's .results has what finished")
        self.failed, self.results = dict(failed), results


def run(
    name: Place,
    *,
    variant: Names | None = None,
    seed: Seeds | None = None,
    quick: bool = False,
    set: Settings | None = None,  # noqa: A002
    results: Place = "results",
    rerun_stale: bool = False,
    ray: bool | str = False,
    progress: bool = False,
) -> Results:
    """Run the trials of a sweep that are not finished yet; what ``clray sweep --local`` does. Returns all of them.

    The same call again runs nothing and returns the same. A half-done trial is continued from its checkpoint, and what
    another process runs is left to it and waited for. Ctrl-C (a notebook's stop) keeps what the trial has so far.

    Args:
        name: a reproduction, a sweep, or a sweep file.
        variant: only these variants; one variant with one seed is one trial.
        seed: these seeds in place of the declared ones.
        quick: the declared quick form.
        set: changes to the sweep file, such as ``{"benchmark.tasks": 5}``: another experiment, with records of its own.
        results: the results store, a folder or a URI.
        rerun_stale: also run trials whose records were made by other code. Without it they are returned as they are;
            ``to_pandas`` has them with ``fresh`` False.
        ray: False: one trial after the other in this process, on the CPU, with as many threads as a trial asks for,
            which this process then keeps. True: many at once on an embedded Ray, which also uses GPUs. Or the
            address of a Ray cluster, such as ``auto``.
        progress: print a line for each trial that ends, or bars on a terminal.

    Raises:
        DeclarationError: there is no such name, variant or key, or a setting is wrong.
        DataError: the data that a trial insists on cannot be had.
        ExtraMissing: Ray is asked for, or the track needs packages, and they are not installed here.
        StoreError: the store cannot be read or written.
        TrialsFailed: trials failed; the others were run.
        KeyboardInterrupt: it was interrupted; the same call continues.
    """
    from clray.commands.answers import require_writable
    from clray.commands.run import options_of, require_extras, runner
    from clray.console import PlainConsole
    from clray.tuning import refuse_images_of_both_phases

    target = target_at(name, results, quick, variant, seed, set)
    options = options_of(ray if isinstance(ray, str) else None, None, rerun_stale, not ray, None, None, False)
    store = opened(results)
    planned = target.plan(store, download=True)
    refuse_images_of_both_phases(target.sweeps, planned)
    failed: dict[str, str] = {}
    if left := planned.left(rerun_stale):
        require_extras(left, not ray, options.address)
        require_writable(store)
        # Where the terminal is no terminal, such as in a notebook, FORCE_COLOR must not make bars of the lines.
        file = sys.stdout if progress else io.StringIO()
        console = PlainConsole(file, force_terminal=file.isatty())
        outcome = runner(not ray)(planned, store, console, options)
        if outcome.interrupted:
            raise KeyboardInterrupt
        failed = outcome.failed
    found = _results(planned, store)
    if failed:
        names = {trial.id: trial.name for trial in planned.trials}
        raise TrialsFailed(failed, found, names[next(iter(failed))])
    return found


def _results(planned: Plan, store: Store) -> Results:
    """The finished trials of a plan with the names that they have in it: a record keeps those of its first sweep."""
    records = []
    for trial in planned.trials:
        record = store.read(trial.id)
        if isinstance(record, Record):
            records.append(replace(record, sweep=trial.sweep, variant=trial.variant))
    return Results(tuple(records), tuple(planned.problems))
