"""Compares clray with the official MER code, setting by setting: python bench/mer_parity.py --output docs/parity_mer.md

There are two comparisons with the reference runs in tests/fixtures/mer. With ``randomness: official`` clray draws the
same numbers as the official code. So a trial is the authors' run with that seed, and its figures must be theirs except
for rounding. With clray's own randomness the runs differ, and only their distribution can agree.

It needs the published MNIST files (CLRAY_DATA, or clray data fetch mnist) and a few seconds for each trial.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.stats import ttest_ind

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "vision")]

from official import METRICS, Case, cases, figures  # noqa: E402

from clray.machine import set_threads  # noqa: E402
from clray.vision.data import locate  # noqa: E402

HEAD = """\
# clray beside the official MER code

The official code (github.com/mattriemer/MER, commit 4b7b9c9) was run unmodified on five MNIST rotations with 200
examples a task, three seeds a setting; its figures are in `tests/fixtures/mer/summary.json`. This page compares
clray with them: the same angles, the same settings, the fused engine on one CPU core. All figures are per cent.
It is written by

    {command}
"""

SAME_DRAWS = """\
## The same random draws

`randomness: official` draws every number as the official code does. What is left is rounding: the engines sum in
another order, and a method that takes tens of steps on each example amplifies the last bit. The columns are ours
less the official figure, seed by seed; `·` is agreement to the last digit (no test image of the five tasks counted
otherwise in sum). Of {runs} runs {exact} agree in all three metrics.

| case | {columns} |
|---|{rule}|
"""

OWN_DRAWS = """\
## clray's own random draws

Mean ± standard deviation: the official code over its {reference} seeds, clray over seeds {first} to {last}. p is
Welch's, two-sided, of equal means. In {tests} comparisons of equal distributions about {expected:.0f} would fall
below 0.05 by chance (fewer are independent, as BTI = RA - LA); {small} do here, and after Holm's correction {left}.
Three runs a side see only gross differences: the table above is the sharper test.

| case | {columns} |
|---|{rule}|
"""


def spread(values: Iterable[float]) -> str:
    """Mean and standard deviation in per cent."""
    found = 100 * np.asarray(list(values))
    return f"{found.mean():.2f} ± {found.std(ddof=1):.2f}"


def difference(ours: float, official: float) -> str:
    """The difference in points; a dot where no test image was counted otherwise (the reference figures are float32)."""
    points = 100 * (ours - official)
    return "·" if abs(points) < 1e-3 else f"{points:+.3f}"


def holm(p: list[float], level: float = 0.05) -> int:
    """The number of hypotheses that Holm's step-down procedure rejects."""
    rejected = 0
    for i, value in enumerate(sorted(p)):
        if value > level / (len(p) - i):
            break
        rejected += 1
    return rejected


def same_draws(settings: dict[str, Case], data: dict) -> str:
    """The first table: each reference run and the same run by clray."""
    seeds = sorted({seed for case in settings.values() for seed in case.figures})
    rows, exact, runs = [], 0, 0
    for name, case in settings.items():
        row = []
        for seed, official in case.figures.items():
            ours = figures(case.trial(seed), data)
            shown = [difference(ours[m], official[m]) for m in METRICS]
            row += shown
            runs, exact = runs + 1, exact + (set(shown) == {"·"})
        print(f"{name}, the official draws: {' '.join(row)}", file=sys.stderr)
        rows.append(f"| {name} | {' | '.join(row)} |")
    columns = [f"{metric}, seed {seed}" for seed in seeds for metric in METRICS]
    rule = "|".join(["---:"] * len(columns))
    head = SAME_DRAWS.format(runs=runs, exact=exact, columns=" | ".join(columns), rule=rule)
    return head + "\n".join(rows)


def own_draws(settings: dict[str, Case], data: dict, seeds: int) -> str:
    """The second table: the official runs' distribution and that of clray's own."""
    rows, tests = [], []
    for name, case in settings.items():
        ours = [figures(case.trial(seed, randomness="clray"), data) for seed in range(seeds)]
        row = [name]
        for metric in METRICS:
            theirs, mine = [f[metric] for f in case.figures.values()], [f[metric] for f in ours]
            row += [spread(theirs), spread(mine)]
            if np.ptp(theirs) or np.ptp(mine):
                tests.append(float(ttest_ind(theirs, mine, equal_var=False).pvalue))
                row.append(f"{tests[-1]:.2f}")
            else:  # Independent forgets nothing: both sides are zero, always
                row.append("–")
        print(", ".join(row), file=sys.stderr)
        rows.append(f"| {' | '.join(row)} |")
    columns = [title for metric in METRICS for title in (f"{metric} official", f"{metric} clray", "p")]
    head = OWN_DRAWS.format(
        reference=len(next(iter(settings.values())).figures),
        first=0,
        last=seeds - 1,
        tests=len(tests),
        expected=0.05 * len(tests),
        small=sum(p < 0.05 for p in tests),
        left=holm(tests),
        columns=" | ".join(columns),
        rule="|".join(["---:"] * len(columns)),
    )
    return head + "\n".join(rows)


def settings_table(settings: dict[str, Case]) -> str:
    """The settings of each case, as a table."""
    rows = []
    for name, case in settings.items():
        values = ", ".join(f"{key} {value:g}" for key, value in case.hyperparameters.items())
        rows.append(f"| {name} | {case.method} | {values} |")
    return "## The cases\n\n| case | method | settings |\n|---|---|---|\n" + "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="the Markdown file to write")
    parser.add_argument("--seeds", type=int, default=10, help="runs a case with clray's own randomness")
    parser.add_argument("--cases", nargs="*", help="only these cases")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: a spread needs 2 or more")
    known = cases()
    if unknown := set(options.cases or ()) - set(known):
        parser.error(f"--cases: {', '.join(sorted(unknown))}: no such case; allowed: {', '.join(known)}")
    set_threads(1)
    settings = {name: case for name, case in known.items() if not options.cases or name in options.cases}
    data = locate("mnist", "files")
    command = "python bench/mer_parity.py " + " ".join(sys.argv[1:])
    parts = [
        HEAD.format(command=command),
        settings_table(settings),
        same_draws(settings, data),
        own_draws(settings, data, options.seeds),
    ]
    options.output.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
