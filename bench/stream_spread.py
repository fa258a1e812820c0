"""The spread between draws of a benchmark: python bench/stream_spread.py --results results

Reads the trials of a sweep that runs variants on several draws of one stream (by default mer/rotations_streams: five
draws of the angles, ``benchmark.seed`` 0 to 4), each with several training seeds, and prints the standard deviation of
the draws themselves, without the training seeds' part: what a reproduction file declares as ``benchmark_sd``.

For D draws with S seeds each, the variance between draws is (mean square between draws - mean square within) / S, the
usual estimate in a one-way random-effects model (Searle, Casella & McCulloch 1992, section 3.5). A negative estimate
means that no variance between draws can be seen, and is printed as 0.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clray.analysis.gather import gather, read  # noqa: E402
from clray.loading import load_sweep  # noqa: E402
from clray.store import Store  # noqa: E402


def between_draws(values: np.ndarray) -> tuple[float, float]:
    """The standard deviation between draws, and the one between seeds within a draw.

    Args:
        values: one metric in per cent, [draws, seeds].
    """
    seeds = values.shape[1]
    within = float(values.var(axis=1, ddof=1).mean())
    between = seeds * float(values.mean(axis=1).var(ddof=1))
    return float(np.sqrt(max(between - within, 0.0) / seeds)), float(np.sqrt(within))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="results", help="the store that holds the trials")
    parser.add_argument("--sweep", default="mer/rotations_streams")
    parser.add_argument("--metrics", default="RA,LA,BTI")
    asked = parser.parse_args()

    sweep = load_sweep(asked.sweep)
    names = list(dict(sweep.variant_settings()))
    gathered = gather(sweep, names, read(Store(asked.results)))
    by_variant: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_variant[name.partition("@")[0]].append(name)
    print(f"{asked.sweep}: {sum(len(r.runs) for r in gathered.variants.values())} runs on {gathered.data}")
    for variant, points in by_variant.items():
        # A draw with a missing run is left out: its mean would be over other seeds.
        complete = [gathered.variants[point] for point in points if not gathered.variants[point].missing]
        if len(complete) < 2:
            print(f"{variant}: {len(complete)} of {len(points)} draws are complete; two are needed")
            continue
        parts = []
        for metric in asked.metrics.split(","):
            table = np.array([list(runs.values(metric).values()) for runs in complete])
            draw, seed = between_draws(table)
            parts.append(f"{metric} {draw:.2f} (seeds {seed:.2f}; means {' '.join(f'{m:.2f}' for m in table.mean(1))})")
        print(f"{variant}, {len(complete)} draws: " + "; ".join(parts))


if __name__ == "__main__":
    main()
