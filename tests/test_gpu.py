"""GPU memory: measured through a stand-in for torch's numbers, stored in records, and shown where it is needed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from clray import gpu
from clray.cli import app
from clray.execution import Execution
from clray.leases import acquire
from clray.loading import load_sweep
from clray.planning import Planned, plan
from clray.record import Record
from clray.store import Store

GIB = 2**30


class Card:
    """A stand-in for ``torch.cuda`` with a GPU of 16 GiB; a test sets the memory that trials have reserved on it."""

    def __init__(self) -> None:
        self.reserved, self.cached = 0, True
        self.properties = SimpleNamespace(total_memory=16 * GIB)

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, device: int) -> Any:
        return self.properties

    def max_memory_reserved(self) -> int:
        return self.reserved

    def max_memory_allocated(self) -> int:
        return self.reserved * 3 // 4

    def empty_cache(self) -> None:
        self.cached = False

    def reset_peak_memory_stats(self) -> None:
        assert not self.cached, "what the last trial left in the cache would count as this one's"
        self.reserved = 0


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setattr(gpu, "_cuda", lambda: made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def look(tiny: Path, store: Store) -> list[Planned]:
    return plan({"tiny": load_sweep(tiny)}, store).trials


def measured(store: Store, id: str, folder: str = "records") -> dict[str, int]:
    record = store.read(id, folder)
    assert isinstance(record, Record)
    return record.provenance["gpu_memory"]


def test_without_a_gpu_there_is_nothing_to_tell() -> None:
    gpu.forget_peak()
    assert gpu.peak() == {}
    assert gpu.peak({"reserved": 3}) == {"reserved": 3}


def test_the_peak_is_the_largest_of_all_executions(card: Card) -> None:
    card.reserved = 4 * GIB
    first = gpu.peak()
    assert first == {"reserved": 4 * GIB, "allocated": 3 * GIB, "total": 16 * GIB}
    card.reserved = 2 * GIB
    assert gpu.peak(first) == first
    gpu.forget_peak()
    assert card.reserved == 0


@pytest.mark.parametrize(
    ("reserved", "fit"),
    [(0.01, 31), (1.0, 10), (6.81, 2), (6.82, 1), (16.0, 1), (3.1, 4)],
)
def test_how_many_fit(reserved: float, fit: int) -> None:
    """16 GiB, 10% on top of the peak and half a GiB for CUDA: 31 x 0.511, 10 x 1.6, 2 x 7.99 ..."""
    memory = {"reserved": int(reserved * GIB), "allocated": 0, "total": 16 * GIB}
    assert gpu.sharers(memory) == fit
    assert fit * gpu.needed(memory) <= 1 or fit == 1
    assert (fit + 1) * gpu.needed(memory) > 1


def test_a_tiny_one_is_not_given_a_thousandth(card: Card) -> None:
    assert gpu.sharers({"reserved": 0, "allocated": 0, "total": 10**15}) == gpu.MAX_TRIALS_PER_GPU


def test_an_out_of_memory_error_is_known_by_its_kind() -> None:
    import torch

    class Own(torch.OutOfMemoryError):
        pass

    assert gpu.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert gpu.is_out_of_memory(Own("CUDA out of memory"))
    assert not gpu.is_out_of_memory(MemoryError())
    assert not gpu.is_out_of_memory(RuntimeError("CUDA error: out of memory in words only"))


@pytest.mark.usefixtures("kernels")
class TestInRecords:
    def begun(self, trial: Planned, store: Store, card: Card) -> Execution:
        """A trial that has saved, having taken 4 GiB."""
        execution = Execution(trial.task(), store)
        card.reserved = 4 * GIB
        execution.step()
        execution.stop()
        return execution

    def test_the_peak_outlives_its_process_and_a_smaller_one_after(self, tiny: Path, store: Store, card: Card) -> None:
        [trial, *_] = look(tiny, store)
        self.begun(trial, store, card)
        assert measured(store, trial.id, "running")["reserved"] == 4 * GIB
        again = Execution(trial.task(), store)
        assert card.reserved == 0, "measured anew"
        card.reserved = 1 * GIB
        while not again.done:
            again.step()
        assert measured(store, trial.id) == {"reserved": 4 * GIB, "allocated": 3 * GIB, "total": 16 * GIB}
        assert again.end.gpu_memory["reserved"] == 4 * GIB
        shown = CliRunner().invoke(app, ["show", trial.id, "--results", store.uri]).output
        assert "It took 4.00 of 16 GiB GPU memory at most: 3 of its kind fit on such a GPU." in shown

    def test_the_next_trial_of_a_process_is_measured_by_itself(self, tiny: Path, store: Store, card: Card) -> None:
        first, second, *_ = look(tiny, store)
        self.begun(first, store, card)
        execution = Execution(second.task(), store)
        execution.step()
        assert execution.memory["reserved"] == 0

    def test_on_a_cpu_the_record_says_nothing_of_it(self, tiny: Path, store: Store) -> None:
        [trial, *_] = look(tiny, store)
        execution = Execution(trial.task(), store)
        while not execution.done:
            execution.step()
        record = store.read(trial.id)
        assert isinstance(record, Record)
        assert "gpu_memory" not in record.provenance
        assert "GPU" not in CliRunner().invoke(app, ["show", trial.id, "--results", store.uri]).output

    def test_who_runs_it_is_told_with_it(self, tiny: Path, store: Store, card: Card) -> None:
        [trial, *_] = look(tiny, store)
        self.begun(trial, store, card)
        status = CliRunner().invoke(app, ["status", "--results", store.uri]).output
        assert f"{trial.id} online seed 0: " in status
        assert "stopped on" in status
        hold = acquire(store, trial.id, variant="online", seed=0, progress=0.25)
        status = CliRunner().invoke(app, ["status", "--results", store.uri]).output
        hold.release()
        assert f"{trial.id} online seed 0: 25% on {hold.lease.owner}, seen " in status
        assert "4.00 of 16 GiB GPU memory" in status
        assert status.count(trial.id) == 1

    def test_a_plan_says_what_fits_and_what_does_not(self, tiny: Path, store: Store, card: Card) -> None:
        tiny.write_text(tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1]\nresources: {cpu: 1, gpu: 0.25}"))
        online, _, independent, *_ = look(tiny, store)
        assert "GPU memory" not in self.plan(tiny, store)
        self.begun(online, store, card)
        execution = Execution(independent.task(), store)
        while not execution.done:
            card.reserved = GIB
            execution.step()
        planned = {t.id: t for t in look(tiny, store)}
        assert planned[online.id].memory["reserved"] == 4 * GIB
        assert planned[independent.id].memory["reserved"] == GIB

        said = self.plan(tiny, store)

        table = said[: said.index("GPU memory: the peak measured")]
        rows = {line.split()[0]: " ".join(line.split()) for line in table.splitlines() if line.strip()}
        assert rows["online"].endswith(" s 4.00 of 16 GiB GPU memory 1/3 (0.333)")
        assert rows["independent"].endswith("1/10 (0.1)")
        assert "'fits' leaves 10% on top and 0.5 GiB for CUDA itself" in said
        assert "online asks for 0.25 of a GPU, but needs 0.31 of the one it was measured on" in said
        assert "independent asks for" not in said
        assert rows["ewc"].split()[-2:] == ["·", "·"]

    def plan(self, tiny: Path, store: Store) -> str:
        done = CliRunner().invoke(app, ["plan", str(tiny), "--results", store.uri], env={"COLUMNS": "160"})
        assert done.exit_code == 0, done.output
        return done.output


def test_a_line_for_an_ended_trial_tells_it(tiny: Path, store: Store) -> None:
    import io

    from rich.console import Console

    from clray.progress import Progress
    from clray.work import TrialEnd

    trials = [dataclasses.replace(t, seconds=1.0) for t in look(tiny, store)[:1]]
    console = Console(file=io.StringIO(), width=200)
    memory = {"reserved": 2 * GIB, "allocated": GIB, "total": 80 * GIB}
    with Progress(trials, 0, 1, console) as progress:
        progress.ended(trials[0].id, TrialEnd("finished", {"RA": 0.5}, 2.0, gpu_memory=memory))
    assert "(2 s; 2.00 of 80 GiB GPU memory; " in console.file.getvalue()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(memory)) == memory
