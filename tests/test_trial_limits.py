"""The limits of a trial: what ends it, what it leaves behind, and how it continues under a higher limit."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner
from waiting import GUARD

from clray import limits as module
from clray.cli import app, run_app
from clray.errors import DeclarationError
from clray.execution import Execution
from clray.launch import run_here
from clray.limits import LimitExceeded, Limits, Watch, bytes_of, hours_words, size_words
from clray.loading import load_sweep
from clray.machine import resident_bytes, return_free_memory
from clray.planning import plan
from clray.selection import Selection
from clray.store import Store
from clray.work import Task

MIB = 2**20
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def task(file: Path, store: Store, **limits: Any) -> Task:
    sweep = load_sweep(file, Selection(only=("er",), seeds=(0,), set=("evaluate=10",)))
    [planned] = plan({"tiny": sweep}, store).trials
    return planned.task(checkpoint_seconds=1e9, limits=Limits(**limits))


def to_the_end(execution: Execution) -> list[Any]:
    while not execution.done:
        execution.step()
    return execution.measurements


def before_each_step(execution: Execution, act: Callable[[], Any], after: int = 0) -> None:
    """Let something happen at the beginning of each step after so many steps."""
    advance, steps = execution._training.advance, iter(range(10**9))

    def act_and_advance() -> Any:
        if next(steps) >= after:
            act()
        return advance()

    execution._training.advance = act_and_advance  # type: ignore[method-assign]


def progress_of(store: Store, trial: str) -> float:
    found: Any = store.read(trial, "running")
    return float(found.provenance["progress"])


class TestSizes:
    @pytest.mark.parametrize(
        ("size", "count"),
        [("4GiB", 4 * 2**30), ("1.5 GiB", 3 * 2**29), ("500MB", 500_000_000), ("2TB", 2 * 10**12), ("64KiB", 65536)],
    )
    def test_their_bytes(self, size: str, count: int) -> None:
        assert bytes_of(size) == count

    @pytest.mark.parametrize("size", ["4", "4G", "4gib", "GiB", "-1GiB", "4GiB ", "1e3MiB", "four GiB", "", "٤GiB"])
    def test_no_size(self, size: str) -> None:
        with pytest.raises(ValueError, match=r"^expected a number with a unit, such as 4GiB .*allowed units: KiB, MiB"):
            bytes_of(size)

    def test_in_words(self) -> None:
        assert (size_words(1.5 * 2**30), size_words(512 * MIB)) == ("1.5 GiB", "512 MiB")
        assert (hours_words(1), hours_words(2.5), hours_words(0.01)) == ("1 hour", "2.5 hours", "36 seconds")


class TestDeclared:
    @pytest.mark.parametrize(
        ("resources", "key", "said"),
        [
            ("{memory: 4}", "resources.memory", "expected a number with a unit, such as 4GiB (it is '4'); allowed"),
            ("{memory: 4 gigabytes}", "resources.memory", "allowed units: KiB, MiB, GiB, TiB, KB, MB, GB, TB"),
            ("{memory: true}", "resources.memory", "such as 4GiB (it is 'True')"),
            ("{memory: 10KiB}", "resources.memory", "less than 1MiB"),
            ("{hours: 0}", "resources.hours", "greater than 0"),
            ("{hours: -2}", "resources.hours", "greater than 0"),
            ("{hours: two}", "resources.hours", "expected a number"),
            ("{hours: true}", "resources.hours", "expected a number (it is True)"),
            ("{hours: .inf}", "", "not a finite number"),
            ("{minutes: 5}", "resources", "'minutes' is not a known key"),
        ],
    )
    def test_one_error_with_its_place(self, tiny: Path, resources: str, key: str, said: str) -> None:
        tiny.write_text(tiny.read_text().replace("seeds: [0, 1]", f"seeds: [0, 1]\nresources: {resources}"))
        with pytest.raises(DeclarationError) as caught:
            load_sweep(tiny)
        text = str(caught.value)
        assert text.startswith(f"{tiny}:{tiny.read_text().splitlines().index(f'resources: {resources}') + 1}: {key}")
        assert said in text
        assert "\n" not in text
        assert CliRunner().invoke(app, ["plan", str(tiny)]).exception.exit_code == 2  # type: ignore[union-attr]

    def test_a_variant_s_own_is_checked_too(self, tiny: Path) -> None:
        tiny.write_text(tiny.read_text().replace("online, lr: 0.01", "online, lr: 0.01, resources: {memory: 4G}"))
        with pytest.raises(DeclarationError, match=r"variants.online.resources.memory: .*such as 4GiB"):
            load_sweep(tiny)

    def test_they_are_no_part_of_a_trial(self, tiny: Path, store: Store) -> None:
        plain = plan({"tiny": load_sweep(tiny)}, store).trials
        limited = tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1]\nresources: {hours: 2, memory: 4GiB}")
        limited = limited.replace("online, lr: 0.01", "online, lr: 0.01, resources: {hours: 3}")
        tiny.write_text(limited)
        both = plan({"tiny": load_sweep(tiny)}, store).trials
        assert [t.id for t in both] == [t.id for t in plain]
        assert {t.limits.memory for t in both} == {4 * 2**30}
        assert {t.variant: t.limits.hours for t in both if t.variant in ("online", "er")} == {"online": 3, "er": 2}
        line = limited.splitlines().index("resources: {hours: 2, memory: 4GiB}") + 1
        assert both[-1].limits.memory_place == f"{tiny}:{line}: resources.memory"
        own = next(t for t in both if t.variant == "online")
        assert own.limits.hours_place.endswith(": variants.online.resources.hours")
        assert own.limits.memory_place == f"{tiny}:{line}: resources.memory"

    def test_a_flag_that_sets_them_leaves_the_sweep_comparable(self, tiny: Path) -> None:
        flags = ("resources.hours=2", "resources.memory=4GiB", "variants.er.resources.hours=3")
        sweep = load_sweep(tiny, Selection(set=flags))
        assert sweep.comparable
        er = next(cell for cell in sweep.cells if cell.variant == "er")
        assert sweep.limits_of(er) == Limits(
            3, 4 * 2**30, "--set variants.er.resources.hours=3: variants.er.resources.hours",
            "--set resources.memory=4GiB: resources.memory",
        )  # fmt: skip
        assert not load_sweep(tiny, Selection(set=("benchmark.tasks=2",))).comparable


@pytest.mark.usefixtures("kernels")
class TestHours:
    def test_it_ends_saved_and_a_higher_limit_continues_with_the_same_bits(self, tiny: Path, tmp_path: Path) -> None:
        elsewhere, store = Store(tmp_path / "undisturbed"), Store(tmp_path / "results")
        undisturbed = to_the_end(Execution(task(tiny, elsewhere), elsewhere))

        limited = task(tiny, store)
        execution = Execution(limited, store)
        limit = execution.seconds + 0.5
        execution._watch = Watch(Limits(limit / 3600, None, "sweep.yaml:7: resources.hours"))
        before_each_step(execution, lambda: time.sleep(0.2))
        with pytest.raises(
            LimitExceeded,
            match=r"^its limit is .* seconds, and it has taken .*; a higher limit "
            r"continues it, from its last checkpoint if there is one: sweep.yaml:7: resources.hours$",
        ):
            to_the_end(execution)  # fmt: skip
        reached = progress_of(store, limited.id)
        assert 0 < reached < 1, "the step that went beyond the limit is saved"
        assert store.leased() == set(), "others may run it"

        again = Execution(dataclasses.replace(limited, limits=Limits(hours=limit / 3600)), store)
        before_each_step(again, lambda: pytest.fail("trained beyond its limit"))
        with pytest.raises(LimitExceeded):
            again.step()
        assert progress_of(store, limited.id) == reached

        continued = Execution(dataclasses.replace(limited, limits=Limits(hours=1)), store)
        assert continued.resumed == reached
        assert to_the_end(continued) == undisturbed

    def test_a_trial_that_ends_in_its_last_step_is_finished(self, tiny: Path, store: Store) -> None:
        execution = Execution(task(tiny, store), store)
        while execution.progress < 0.9:
            execution.step()
        execution._watch = Watch(Limits(hours=(execution.seconds + 0.1) / 3600))
        before_each_step(execution, lambda: time.sleep(0.2))
        execution.step()
        assert execution.done

    def test_a_step_that_does_not_end_is_cut_off(
        self, tiny: Path, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LATE_SECONDS", 0.3)
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
        todo = task(tiny, store)
        execution = Execution(todo, store)
        execution.step()
        execution.save()
        saved = execution.progress
        execution._watch = Watch(Limits(hours=(execution.seconds + 0.5) / 3600))

        def hang() -> None:
            while True:
                with contextlib.suppress(Exception):  # as a method might
                    time.sleep(0.01)

        before_each_step(execution, hang)
        begun = time.monotonic()
        with pytest.raises(LimitExceeded, match="its limit is"):
            execution.step()
        assert time.monotonic() - begun < 60
        assert store.leased() == set()
        assert Execution(todo, store).resumed == saved


@pytest.mark.usefixtures("kernels")
class TestMemory:
    def large(self, kept: list[Any]) -> Callable[[], None]:
        return lambda: kept.append(np.ones(300 * MIB // 8))

    def test_the_resident_memory_of_this_process(self) -> None:
        return_free_memory()  # which trials of tests before have kept
        before = resident_bytes()
        assert before is not None
        large = np.ones(100 * MIB // 8)
        assert 90 * MIB < (resident_bytes() or 0) - before < 200 * MIB
        del large
        return_free_memory()
        assert (resident_bytes() or 0) - before < 50 * MIB

    def test_memory_that_was_freed_and_kept_is_no_excess(self) -> None:
        code = """
import numpy as np
from clray.limits import Limits, Watch
from clray.machine import keep_freed_memory, resident_bytes
keep_freed_memory()
watch = Watch(Limits(memory=resident_bytes() + 100 * 2**20))
for _ in range(2):
    large = [np.ones(50 * 2**20 // 8) for _ in range(4)]
    print(watch.exceeded(0) is not None)
    del large
    print(resident_bytes() > watch._limits.memory, watch.exceeded(0) is not None)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        kept = str(platform.libc_ver()[0] == "glibc")
        assert done.stdout.split() == ["True", kept, "False"] * 2

    def test_where_there_is_no_proc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_proc(*_: Any) -> Any:
            raise FileNotFoundError

        here = resident_bytes()
        monkeypatch.setattr("builtins.open", no_proc)
        monkeypatch.setattr("subprocess.run", lambda *_, **__: type("Done", (), {"stdout": b" 2048\n"}))
        assert resident_bytes() == 2 * MIB
        assert here is not None

    def test_between_two_steps_it_ends_saved(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LOOK_SECONDS", 1e6)
        elsewhere, store, kept = Store(tmp_path / "undisturbed"), Store(tmp_path / "results"), []  # type: ignore[var-annotated]
        undisturbed = to_the_end(Execution(task(tiny, elsewhere), elsewhere))
        limited = task(tiny, store)
        execution = Execution(limited, store)
        execution._watch = Watch(
            Limits(None, (resident_bytes() or 0) + 150 * MIB, "", "sweep.yaml:7: resources.memory")
        )
        before_each_step(execution, self.large(kept), after=2)
        with pytest.raises(
            LimitExceeded,
            match=r"^its process may have .* of memory, and has .*; a higher limit "
            r"continues it, from its last checkpoint if there is one: sweep.yaml:7: resources.memory$",
        ):
            to_the_end(execution)  # fmt: skip
        assert 0 < progress_of(store, limited.id) < 1
        kept.clear()
        assert to_the_end(Execution(limited, store)) == undisturbed

    def test_within_a_step_it_is_cut_off(self, tiny: Path, store: Store) -> None:
        todo, kept = task(tiny, store), []  # type: ignore[var-annotated]
        execution = Execution(todo, store)
        execution.step()
        execution.save()
        saved = execution.progress
        execution._watch = Watch(Limits(memory=(resident_bytes() or 0) + 150 * MIB))

        def grow() -> None:
            self.large(kept)()
            for _ in range(6000):
                time.sleep(0.01)

        before_each_step(execution, grow)
        with pytest.raises(LimitExceeded, match="of memory, and has"):
            execution.step()
        assert execution.progress == saved
        assert Execution(todo, store).resumed == saved

    def test_less_than_the_libraries_need(self, tiny: Path, store: Store) -> None:
        todo = task(tiny, store, memory=2 * MIB)
        with pytest.raises(LimitExceeded, match="may have 2 MiB of memory"):
            Execution(todo, store).step()
        assert store.leased() == set()


def test_a_step_is_cut_off_within_itself_or_not_at_all() -> None:
    """Whenever the watching thread strikes, nothing but ``run`` raises, and only its one error."""
    rng, caught, missed, watches, over = random.Random(0), 0, 0, [Watch(Limits())], threading.Event()

    def work(length: int) -> int:
        total = 0
        for i in range(length):
            total += i
        return total

    def strike() -> None:
        while not over.is_set():
            watch = watches[0]
            work(rng.randrange(3000))
            if (working := watch._working) is not None:
                watch._working = working[0], 0.0
            watch.look()

    interval, striker = sys.getswitchinterval(), threading.Thread(target=strike)
    sys.setswitchinterval(1e-5)  # else the two threads would hardly take turns
    striker.start()
    try:
        deadline = time.monotonic() + 60
        while min(caught, missed) < 50 and time.monotonic() < deadline:
            watches[0] = watch = Watch(Limits())
            try:
                watch.run(lambda: work(rng.randrange(6000)), 0.0)
                missed += 1
            except LimitExceeded:
                caught += 1
            work(100)  # where one that comes too late would hit
    finally:
        over.set()
        sys.setswitchinterval(interval)
        striker.join()
    assert min(caught, missed) >= 50


@pytest.mark.usefixtures("kernels")
class TestLaunches:
    @pytest.fixture
    def limited(self, tiny: Path) -> Path:
        """One of three variants may take no time, and one no memory."""
        text = tiny.read_text().replace("online, lr: 0.01", "online, lr: 0.01, resources: {hours: 0.0000001}")
        tiny.write_text(text.replace("er, lr: 0.05, mem", "er, lr: 0.05, resources: {memory: 2MiB}, mem", 1))
        return tiny

    def test_the_others_go_on(self, limited: Path, store: Store) -> None:
        sweep = load_sweep(limited, Selection(only=("online", "er", "task_input"), seeds=(0,)))
        planned = plan({"tiny": sweep}, store)
        console = Console(file=io.StringIO(), width=300)
        outcome = run_here(planned, store, console)
        by_variant = {t.variant: t.id for t in planned.trials}
        assert outcome.finished == [by_variant["task_input"]]
        assert set(outcome.failed) == {by_variant["online"], by_variant["er"]}
        assert "its limit is 0.00036 seconds" in outcome.failed[by_variant["online"]]
        line = next(i for i, text in enumerate(limited.read_text().splitlines(), 1) if "hours: 0.0000001" in text)
        assert outcome.failed[by_variant["online"]].endswith(f"{limited}:{line}: variants.online.resources.hours")
        failure = store.failure(by_variant["er"])
        assert failure is not None
        assert failure["kind"] == "LimitExceeded"
        assert "may have 2 MiB of memory" in failure["error"]

    def test_the_command_says_so_and_a_higher_limit_finishes(self, limited: Path, store: Store) -> None:
        command = ["sweep", str(limited), "--local", "--only", "online,task_input", "--seeds", "0", "--wandb", "off",
                   "--results", store.uri]  # fmt: skip
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 1
        assert "1 trial failed:" in done.stdout
        assert "variants.online.resources.hours" in done.stdout
        shown = CliRunner().invoke(app, ["plan", *command[1:2], *command[3:7], *command[9:]])
        assert "failed last time: online seed 0: its limit is" in shown.stdout
        done = CliRunner().invoke(app, [*command, "--set", "variants.online.resources.hours=1"])
        assert done.exit_code == 0, done.stdout
        assert "Not comparable" not in done.stdout

    def test_so_does_clray_run(self, limited: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["clray", "run", str(limited), "--variant", "er", "--results", store.uri]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", arguments)
            with pytest.raises(SystemExit) as ended:
                run_app(app)
        assert ended.value.code == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: its process may have 2 MiB of memory, and has ")
        assert line.endswith(": variants.er.resources.memory")
        assert store.leased() == set()


def test_a_trial_can_be_profiled() -> None:
    """The end of a step must leave nothing pending in the thread: CPython never got out of the next call there."""
    code = (
        "import sys\n"
        "from clray.limits import NO_LIMITS, Watch\n"
        "assert Watch(NO_LIMITS).run(lambda: 7, 0.0) == 7\n"
        "sys.setprofile(lambda *event: None)\n"
        "(lambda: None)()\n"
        "print('came back')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=GUARD)
    assert run.stdout == "came back\n", run.stderr
