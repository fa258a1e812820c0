"""The same trials at two revisions, compared bit for bit: python bench/same_bits.py REV

A refactoring changes no number. This runs small trials of every method of every track with the code of another
revision and with the code of this working tree, on this machine, and compares what was measured and the final states.
Of a final state it compares the arrays of floating-point numbers (weights, optimizer states, Fisher information …):
every one of the one revision must be found in the other with the same bits. A state may be arranged in another way, and
a memory may name its examples in another way. Each trial is also stopped once in the middle and continued from its
saved state, at this revision.

Trials are declared by the shipped sweeps, made smaller by ``--set``; what needs data that is not here is left out, and
said. With ``--write`` the digests of the code of both revisions are written to clray/equal_code.json as pairs, where
all trials with these digests are equal: then records of the other revision stay fresh. The exit code is 1 where
anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

MER = ("benchmark.tasks=3", "benchmark.train_per_task=60", "benchmark.source=embedded")
TAG = ("benchmark.source=embedded", "benchmark.tasks=3", "benchmark.train_per_task=60", "benchmark.test_per_task=100")
CLASSES = ("benchmark.train_per_class=40", "benchmark.test_per_class=20", "evaluate=50")
SMALL = ("model.filters=4",)
EPISODES = ("model.embedding=8",)
BOTH = ("engine=eager", "engine=auto")
DRAWS = ("randomness=clray", "randomness=official")

Axes = tuple[tuple[str, ...], ...]
CASES: list[tuple[str, tuple[str, ...], Axes]] = [
    # sweep, --set for all its trials, and further ones of which each combination is run
    ("mer/rotations", MER, (BOTH, DRAWS)),
    ("mer/rotations", (*MER, "evaluate=25", "task_orders=[[2, 0, 1]]"), (BOTH,)),
    ("mer/permutations", MER, ()),
    ("tag/rotated_mnist", TAG, (BOTH, DRAWS)),
    ("tag/rotated_mnist", (*TAG, "benchmark.validation=true", "task_orders=[[2, 0, 1]]"), (DRAWS,)),
    ("tag/rotated_mnist", (*TAG, "benchmark.epochs=2", "benchmark.heads=single", "model.dropout=0.3"), ()),
    ("tag/permuted_mnist", TAG, ()),
    ("tag/cifar100", ("benchmark.train_per_task=30", "benchmark.test_per_task=20", "model.filters=8"), ()),
    ("tag/cifar100", ("benchmark.train_per_task=12", "benchmark.test_per_task=10", "benchmark.validation=true",
                      "model.filters=2"), ()),
    ("tag/cifar100_10tasks", ("benchmark.train_per_task=20", "benchmark.test_per_task=20"), ()),
    ("tag/5_dataset", ("benchmark.tasks=2", "benchmark.train_per_task=30", "benchmark.test_per_task=20",
                       "model.filters=8"), ()),
    ("stable_sgd/experiment_1_rotated", (*TAG[:1], "benchmark.tasks=2", "benchmark.train_per_task=50",
     "benchmark.test_per_task=50"), (DRAWS,)),
    ("stable_sgd/experiment_2_permuted", TAG, ()),
    ("online/mnist", ("benchmark.source=embedded", "model.hidden=[150]", *CLASSES), ()),
    ("online/blurry", ("benchmark.source=embedded", *CLASSES), ()),
    ("online/coarse_to_fine", (*CLASSES[1:], "benchmark.train_per_class=10", *SMALL), ()),
    ("online/class_orders", ("benchmark.source=embedded", *CLASSES, "task_orders=[[4, 1, 3, 0, 2]]"), ()),
    ("online/er_ace_cifar10", (*CLASSES, *SMALL), ()),
    ("online/mir_cifar10", (*CLASSES, *SMALL), ()),
    ("online/scr_cifar10", (*CLASSES, *SMALL), ()),
    ("online/pcr_cifar10", (*CLASSES, *SMALL), ()),
    ("online/er_ace_cifar100", ("benchmark.train_per_class=5", *CLASSES[1:], *SMALL), ()),
    ("online/tiny_memories_cifar100", ("benchmark.tasks=3", "benchmark.train_per_task=30",
                                       "benchmark.test_per_task=20", *SMALL), ()),
    ("metaseq2seq/mutual_exclusivity", EPISODES, (BOTH,)),
    ("metaseq2seq/add_jump_permutation", EPISODES, ()),
    ("metaseq2seq/around_right", EPISODES, ()),
    ("metaseq2seq/length", EPISODES, ()),
    ("lamol/two_tasks_small", (), (BOTH,)),
]  # fmt: skip
REPEATS = ("-5120", "-500")
"""Variants that differ from another one in the memory's size only: they would take minutes and test nothing more."""
QUICK = ("metaseq2seq/", "lamol/")
"""Sweeps that are run in their quick form, since --set alone cannot make them small."""
TAG_FURTHER = """
multitask_cyclic: {method: multitask_cyclic, lr: 0.1, cycles: 2}
tag-er: {method: er_reservoir, optimizer: tag-rmsprop, lr: 0.001, b: 5, memories_per_class: 2}
ewc: {method: ewc_online, lr: 0.1, strength: 10.0, fisher: as_coded, fisher_images: 20}
ewc-intended: {method: ewc_online, lr: 0.1, strength: 10.0, fisher: intended, fisher_images: 20}
tag-adam: {method: naive, optimizer: tag-adam, lr: 0.003, b: 5}
tag-adagrad: {method: naive, optimizer: tag-adagrad, lr: 0.01, b: 5}
adagrad: {method: naive, optimizer: adagrad, lr: 0.03}
adam: {method: naive, optimizer: adam, lr: 0.01}
"""
MER_FURTHER = """
er5: {method: er, algorithm: 5, lr: 0.01, memories: 50, replay_batch: 10}
gem: {method: gem, lr: 0.05, memories_per_task: 12, margin: 0.5}
independent: {method: independent, lr: 0.01, finetune: false}
ewc: {method: ewc, lr: 0.01, strength: 10.0, memories_per_task: 10}
mer: {method: mer, lr: 0.05, memories: 50, replay_batch: 5, beta: 0.1, gamma: 0.9, batches_per_example: 2}
mer6: {method: mer, algorithm: 6, lr: 0.05, memories: 50, replay_batch: 6, gamma: 0.3}
mer7: {method: mer, algorithm: 7, lr: 0.02, memories: 50, replay_batch: 6, gamma: 0.3, s: 5.0}
"""
FURTHER: list[tuple[str, str, tuple[str, ...], Axes]] = [
    # variants that no shipped sweep has: the sweep that gives their other settings, the variants, and as above
    ("tag/rotated_mnist", TAG_FURTHER, TAG, (BOTH, DRAWS)),
    ("tag/rotated_mnist", TAG_FURTHER, (*TAG, "benchmark.validation=true", "benchmark.heads=single"), ()),
    ("mer/rotations", MER_FURTHER, MER, (BOTH, DRAWS)),
    ("mer/rotations", MER_FURTHER, (*MER, "model.hidden=[20, 20, 20]", "benchmark.last_test_example=scored"), ()),
]


def declared() -> Iterator[tuple[str, dict[str, Any]]]:
    """A label and the declaration of every trial to run."""
    import yaml

    from clray.loading import find_sweep, variant_names
    from clray.selection import Selection

    for sweep, changes, axes in CASES:
        for point in itertools.product(*axes):
            sets = (*changes, *point)
            quick = sweep.startswith(QUICK)
            for name in variant_names(sweep, Selection(quick=quick)):
                if name.endswith(REPEATS):
                    continue
                yield from _trials(sweep, Selection(quick=quick, only=(name,), set=sets))
    with tempfile.TemporaryDirectory() as folder:
        for sweep, variants, changes, axes in FURTHER:
            content = yaml.safe_load(find_sweep(sweep).read_text(encoding="utf-8"))
            content["variants"] = yaml.safe_load(variants)
            content.pop("quick", None)
            file = Path(folder) / "further.yaml"
            file.write_text(yaml.safe_dump(content), encoding="utf-8")
            for point in itertools.product(*axes):
                for name in content["variants"]:
                    yield from _trials(str(file), Selection(only=(name,), set=(*changes, *point)))


def _trials(sweep: str, selection: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    from clray.errors import DeclarationError
    from clray.loading import load_sweep

    try:
        cells = load_sweep(sweep, selection).cells
    except DeclarationError as error:
        if "train_per_task" not in str(error):
            print(f"left out: {sweep} {selection.only[0]}: {error}", file=sys.stderr)
            return
        from dataclasses import replace

        fits = f"variants.{selection.only[0]}.memories_per_task=10"
        if fits in selection.set:
            raise
        yield from _trials(sweep, replace(selection, set=(*selection.set, fits)))
        return
    for cell in cells[:1]:
        trial = cell.trial.model_dump(mode="json")
        if trial["track"] == "episodes" and "episodes" in trial["hyperparameters"]:
            trial["hyperparameters"]["episodes"] = min(trial["hyperparameters"]["episodes"], 12)
        changes = " ".join(selection.set)
        yield f"{trial['track']} {trial['method']}: {Path(sweep).stem} {cell.variant} {changes}", trial


# ----------------------------------------------------------------------------------------------------------------------
# In a process of each revision


def digests(trials: list[tuple[str, Any]]) -> dict[str, str]:
    """The digest of the code of each trial, by label, at the revision that is loaded."""
    from clray import tracks
    from clray.provenance import code_digest

    def digest(trial: Any) -> str:
        side: Any = tracks.track(trial.track)
        try:
            if hasattr(side, "module_of"):  # revisions up to 450dae2
                return code_digest(trial.track, side.module_of(trial.method))  # type: ignore[call-arg, arg-type]
            return code_digest(trial)
        except KeyError:  # a revision that lacks the benchmark or the method
            return ""

    return {label: digest(trial) for label, trial in trials}


def child(file: str, only_digests: bool) -> None:
    """Run the declared trials of a file with the code that PYTHONPATH names; one line of JSON a trial.

    Args:
        file: labels and declarations.
        only_digests: print the digests of the trials' code instead, as one line.
    """
    from clray import tracks
    from clray.errors import DataError
    from clray.training import run

    try:
        from clray.trial import Trial
    except ImportError:
        from clray.spec import Trial  # type: ignore[no-redef]
    try:
        from clray.machine import keep_freed_memory, set_threads
    except ImportError:  # revisions up to 14f8ace
        from clray.execution import set_threads  # type: ignore[attr-defined, no-redef]
    else:
        keep_freed_memory()
    set_threads(1)
    trials = [(label, Trial(**declaration)) for label, declaration in json.loads(Path(file).read_text())]
    if only_digests:
        print(json.dumps(digests(trials)))
        return
    for label, trial in trials:
        track = tracks.track(trial.track)
        try:
            data = track.data(trial, False)
            if hasattr(track, "modules_of"):  # since 450dae2
                track.modules_of(trial)
        except (DataError, KeyError) as error:  # no data, or a revision that lacks the benchmark or the method
            print(json.dumps({"label": label, "left_out": str(error).splitlines()[0]}), flush=True)
            continue
        try:
            training = track.train(trial, data, "cpu")
            measured = [list(m) for m in run(training)]
            found = {"measured": measured, "state": states(training.state_dict())}
            found["continued"] = continued(track, trial, data) == found
        except Exception as error:  # the errors of the two revisions are compared, too
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"label": label, **found}), flush=True)


def continued(track: Any, trial: Any, data: dict[str, Any]) -> dict[str, Any]:
    """The same results of the trial when it is stopped half-way and continued by a new object from its saved state."""
    import torch

    from clray.training import run

    training, measured = track.train(trial, data, "cpu"), []
    while training.progress < 0.4:
        measured += training.advance()
    saved = io.BytesIO()
    torch.save(training.state_dict(), saved)
    saved.seek(0)
    again = track.train(trial, data, "cpu")
    again.load_state_dict(torch.load(saved, weights_only=True))
    measured += run(again)
    return {"measured": [list(m) for m in measured], "state": states(again.state_dict())}


def states(state: Any) -> list[str]:
    """The hashes of all floating-point arrays in a state, sorted."""
    import numpy as np

    found = []
    waiting = [state]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
        elif hasattr(part, "numpy") or isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part.detach().cpu().numpy() if hasattr(part, "detach") else part)
            if array.dtype.kind == "f" and array.size > 1:
                found.append(hashlib.sha256(array.dtype.str.encode() + array.tobytes()).hexdigest()[:16])
    return sorted(found)


# ----------------------------------------------------------------------------------------------------------------------


def answer_of(checkout: Path, file: Path, *flags: str) -> list[Any]:
    """The lines that a process with a checkout's code prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(file), *flags]
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def results_of(checkout: Path, file: Path) -> dict[str, dict[str, Any]]:
    """The results of the trials with a checkout's code, by label."""
    return {result["label"]: result for result in answer_of(checkout, file)}


@contextmanager
def checkout_of(revision: str, folder: Path) -> Iterator[Path]:
    """A checkout of a revision below a folder."""
    checkout = folder / "other"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(checkout), revision], cwd=ROOT, check=True)
    try:
        yield checkout
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(checkout)], cwd=ROOT, check=True)


def write_pairs(revision: str, found: dict[str, str], theirs: dict[str, str], ours: dict[str, str]) -> int:
    """Write the pairs of digests for which all trials are equal. Returns the number of new pairs.

    Args:
        found: by label, the result of the comparison.
        theirs: by label, the digest at the other revision.
        ours: by label, the digest here.
    """
    from clray.equal_code import add_pair

    by_pair: dict[tuple[str, str], list[str]] = {}
    for label in found:
        by_pair.setdefault((theirs[label], ours[label]), []).append(label)
    named = ["git", "rev-parse", "--short=7"]
    commits = [subprocess.check_output([*named, r], cwd=ROOT, text=True).strip() for r in (revision, "HEAD")]
    new = 0
    for (one, other), labels in by_pair.items():
        results = {found[label] for label in labels}
        if one != other and results <= {"equal", "left out"} and "equal" in results:
            of, count = labels[0].partition(":")[0], sum(found[label] == "equal" for label in labels)
            new += add_pair(one, other, f"{of}: {count} trials equal at {commits[0]} and {commits[1]}")
    return new


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """``equal``, or what differs."""
    if "left_out" in theirs or "left_out" in ours:
        return "left out"
    if "error" in theirs or "error" in ours:
        same = theirs.get("error") == ours.get("error")
        return "equal" if same else f"ERRORS: {theirs.get('error')} | {ours.get('error')}"
    if theirs["measured"] != ours["measured"]:
        return "MEASUREMENTS DIFFER"
    if theirs["state"] != ours["state"]:
        return "STATES DIFFER"
    return "equal" if ours["continued"] else "CONTINUED DIFFERS"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("revision", nargs="?", default="HEAD", help="the other revision: a commit or a branch")
    parser.add_argument("--only", default="", help="only trials whose label holds this text")
    parser.add_argument("--kept", help="a file that keeps the other revision's results from one call to the next")
    parser.add_argument("--write", action="store_true", help="write pairs of digests to clray/equal_code.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--digests", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return child(asked.child, asked.digests)
    sys.path.insert(0, str(ROOT))
    trials = [(label, trial) for label, trial in declared() if asked.only in label]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trials.json"
        file.write_text(json.dumps(trials))
        kept = Path(asked.kept) if asked.kept else None
        with checkout_of(asked.revision, Path(folder)) as checkout:
            [their_code] = answer_of(checkout, file, "--digests")
            theirs = json.loads(kept.read_text()) if kept and kept.exists() else results_of(checkout, file)
        if kept:
            kept.write_text(json.dumps(theirs))
        ours = results_of(ROOT, file)
        [our_code] = answer_of(ROOT, file, "--digests")
    found = {label: compare(theirs.get(label, {"left_out": ""}), ours[label]) for label, _ in trials}
    counts: dict[str, Counter[str]] = {}
    for label, result in found.items():
        counts.setdefault(label.partition(":")[0], Counter())[result.split(":")[0]] += 1
        if result not in ("equal", "left out"):
            print(f"{label}: {result}")
    for method, each in counts.items():
        print(f"{method:28} " + ", ".join(f"{count} {what}" for what, count in each.items()))
    if asked.write:
        print(f"{write_pairs(asked.revision, found, their_code, our_code)} new pairs of digests")
    different = sum(count for each in counts.values() for what, count in each.items() if what.isupper())
    total = Counter(itertools.chain.from_iterable(each.elements() for each in counts.values()))
    print("together: " + ", ".join(f"{count} {what}" for what, count in total.items()))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
