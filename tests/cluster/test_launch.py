"""Launches on a Ray cluster of one machine with four logical CPUs, and a GPU that may exist in Ray's books only."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import GUARD, ROOT, environment, numbers, planned, printed, quiet
from typer.testing import CliRunner

from clray import launch
from clray.cli import app
from clray.cluster import placement
from clray.cluster import tune as cluster_tune
from clray.cluster.tune import run_on_ray
from clray.errors import ClusterError
from clray.launch import Options, Outcome, run_here
from clray.leases import acquire
from clray.planning import Plan, Planned
from clray.progress import Progress
from clray.record import Record
from clray.store import Store

SWEEP = """
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 30, seed: 0, source: embedded}
seeds: [0, 1, 2, 3]
variants:
  packed: {method: er, lr: 0.1, memories: 20, replay_batch: 5, resources: {cpu: 1, pack: 4}}
  shared: {method: mer, lr: 0.1, memories: 20, replay_batch: 5, resources: {cpu: 0.5, gpu: 0.25}}
"""
TINY = SWEEP[: SWEEP.index("  shared")]


@pytest.fixture(scope="module")
def cluster(ray_tmpdir: Path) -> Iterator[Options]:
    """Options that lead to the cluster."""
    kept = dict(os.environ)
    os.environ |= {"RAY_TMPDIR": str(ray_tmpdir), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 4, "num_gpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    started = Cluster(initialize_head=True, head_node_args=head)
    yield Options(address=started.address)
    started.shutdown()
    os.environ.clear()
    os.environ |= kept


def foreign(trial: Planned) -> Planned:
    """The trial, told to read data that no machine has: it raises wherever it is run."""
    return dataclasses.replace(trial, data={**trial.data, "fingerprint": "foreign"})


@dataclasses.dataclass
class Launched:
    file: Path
    store: Store
    plan: Plan
    broken: str
    outcome: Outcome
    output: str
    placed_at_once: int


@pytest.fixture(scope="module")
def launched(kernels: None, cluster: Options, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Both variants, with a trial that raises in the middle of the pack, and a torn checkpoint of the first."""
    folder = tmp_path_factory.mktemp("launched")
    file, store = folder / "both.yaml", Store(folder / "results")
    file.write_text(SWEEP)
    plan = planned(file, store)
    broken = plan.trials[1].id
    torn = Path(store.path("checkpoints", f"{plan.trials[0].id}.ckpt"))
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"torn")
    trials = [foreign(t) if t.id == broken else t for t in plan.trials]
    most, running = [0], Progress.running

    def count_gpu_shares(self: Progress, *report: Any) -> None:
        from ray.util import placement_group_table

        shares = [g for g in placement_group_table().values() if g["bundles"][0].get("GPU")]
        most[0] = max(most[0], sum(g["state"] == "CREATED" for g in shares))
        running(self, *report)

    console = quiet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "running", count_gpu_shares)
        outcome = run_on_ray(Plan(trials, []), store, console, cluster)
    return Launched(file, store, plan, broken, outcome, printed(console), most[0])


def test_a_trial_that_raises_takes_no_other_along(launched: Launched) -> None:
    assert set(launched.outcome.failed) == {launched.broken}
    assert "fingerprint foreign" in launched.outcome.failed[launched.broken]
    assert sorted(launched.outcome.finished) == sorted(t.id for t in launched.plan.trials if t.id != launched.broken)
    assert launched.store.finished() == set(launched.outcome.finished)
    assert launched.output.count("failed:") == 1, "it is not tried again"


def test_the_reason_is_kept_and_shown(launched: Launched) -> None:
    failure = launched.store.failure(launched.broken)
    assert failure is not None
    assert failure["kind"] == "DataError"
    assert "sources.load" in failure["traceback"]
    shown = CliRunner().invoke(app, ["show", launched.broken, "--results", launched.store.uri])
    assert "fingerprint foreign" in shown.output
    plan = CliRunner().invoke(app, ["plan", str(launched.file), "--results", launched.store.uri])
    assert "failed last time" in plan.output


def test_a_checkpoint_that_is_passed_over_is_told_once(launched: Launched) -> None:
    id = launched.plan.trials[0].id
    place = launched.store.path("checkpoints", f"{id}.ckpt")
    assert launched.output.count(f"packed seed 0 ({id}): {place}: passed over: it is torn\n") == 1
    record = launched.store.read(id)
    assert isinstance(record, Record)
    assert record.provenance["executions"][-1]["passed_over"] == [f"{place}: passed over: it is torn"]


def test_every_ended_trial_has_its_line(launched: Launched) -> None:
    lines = launched.output.splitlines()
    assert lines[0] == "8 trials to run, 0 finished before"
    assert sum("RA " in line and "left)" in line for line in lines) == 7
    assert lines[-1].startswith(("[8/8] ", "failed: "))


def test_four_quarters_of_a_gpu_are_placed_at_once(launched: Launched) -> None:
    assert launched.placed_at_once == 4


def test_a_gpu_in_the_books_only_means_the_cpu_and_the_record_says_so(launched: Launched) -> None:
    import torch

    expected = "cuda" if torch.cuda.is_available() else "cpu"
    for trial in launched.plan.trials:
        record = launched.store.read(trial.id)
        if isinstance(record, Record):
            assert record.provenance["device"] == (expected if trial.variant == "shared" else "cpu")


@pytest.mark.slow
def test_a_worker_that_ran_others_before_gives_the_numbers_of_a_fresh_process(
    launched: Launched, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "clray", "run", str(launched.file), "--variant", "packed", "--seed", "3", "--json"]
    run = subprocess.run(
        [*command, "--results", str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    id = json.loads(run.stdout)["trial"]
    assert numbers(Store(tmp_path))[id] == numbers(launched.store)[id]


@pytest.mark.slow
def test_launching_again_runs_what_is_left_and_what_is_stale(launched: Launched, cluster: Options) -> None:
    store = launched.store
    before = numbers(store)
    stale = store.read(launched.outcome.finished[0])
    assert isinstance(stale, Record)
    store.write(dataclasses.replace(stale, provenance={**stale.provenance, "code": "another"}))
    written = {file: file.stat().st_mtime_ns for file in Path(store.path("records")).iterdir()}

    again = run_on_ray(planned(launched.file, store), store, quiet(), dataclasses.replace(cluster, rerun_stale=True))

    assert again.failed == {}
    assert sorted(again.finished) == sorted([launched.broken, stale.id])
    changed = {f.stem for f in Path(store.path("records")).iterdir() if written.get(f) != f.stat().st_mtime_ns}
    assert changed == {launched.broken, stale.id}
    after = numbers(store)
    assert {id: after[id] for id in before} == before
    assert store.failure(launched.broken) is None
    assert (
        run_on_ray(planned(launched.file, store), store, quiet(), Options(address="nobody.invalid:1")) == Outcome()
    ), "with nothing left to run, Ray is not even looked for"


def test_without_a_gpu_anywhere_the_cpu_does_it_and_a_file_uri_is_a_store(
    cluster: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clray.cluster.session.machines", lambda *_: [{"CPU": 4.0}])
    file, store, console = tmp_path / "sweep.yaml", Store(f"file://{tmp_path}/results"), quiet()
    file.write_text(TINY.replace("seeds: [0, 1, 2, 3]", "seeds: [0]").replace("pack: 4", "gpu: 1"))
    outcome = run_on_ray(planned(file, store), store, console, cluster)
    assert "No GPU here" in printed(console)
    assert len(outcome.finished) == 1
    assert Store(tmp_path / "results").finished() == set(outcome.finished)


def test_what_no_machine_has_room_for_is_an_error_before_anything_starts(cluster: Options, tmp_path: Path) -> None:
    file, store = tmp_path / "sweep.yaml", Store(tmp_path / "results")
    file.write_text(SWEEP.replace("cpu: 0.5", "cpu: 64"))
    with pytest.raises(ClusterError, match=r"64 CPUs and 0\.25 GPUs: the largest has 4 CPUs and 1 GPUs"):
        run_on_ray(planned(file, store), store, quiet(), cluster)
    assert not (tmp_path / "results").exists()


LIMITED = """
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 60, seed: 0, source: embedded}
evaluate: 10
seeds: [0]
variants:
  small: {method: er, lr: 0.1, memories: 20, replay_batch: 5, resources: {memory: 2MiB}}
  short: {method: online, lr: 0.1, resources: {hours: 0.0000001}}
  plain: {method: mer, lr: 0.1, memories: 20, replay_batch: 5, resources: {hours: 1, memory: 64GiB}}
"""


def test_a_trial_that_exceeds_its_limits_takes_no_other_along(kernels: None, cluster: Options, tmp_path: Path) -> None:
    file, store, whole, console = tmp_path / "sweep.yaml", Store(tmp_path / "a"), Store(tmp_path / "b"), quiet()
    file.write_text(LIMITED)
    plan = planned(file, store)
    small, short, plain = (trial.id for trial in plan.trials)
    outcome = run_on_ray(plan, store, console, cluster)
    assert outcome.finished == [plain]
    assert set(outcome.failed) == {small, short}
    assert "LimitExceeded: its process may have 2 MiB of memory, and has" in outcome.failed[small]
    assert f"{file}:10: variants.short.resources.hours" in outcome.failed[short]
    assert printed(console).count("failed:") == 2, "neither is tried again"
    failure = store.failure(short)
    assert failure is not None
    assert failure["kind"] == "LimitExceeded"

    file.write_text(LIMITED.replace("2MiB", "64GiB").replace("0.0000001", "1"))
    assert set(run_on_ray(planned(file, store), store, quiet(), cluster).finished) == {small, short}
    run_here(planned(file, whole), whole, quiet())
    assert numbers(store) == numbers(whole)


def test_after_its_time_a_launch_ends_and_its_trials_are_saved(
    kernels: None, cluster: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, store, console = tmp_path / "sweep.yaml", Store(tmp_path / "results"), quiet()
    file.write_text(LIMITED.replace("evaluate: 10", "evaluate: 1").replace("seeds: [0]", "seeds: [0, 1, 2, 3, 4, 5]"))
    plan = planned(file, store)
    plain = Plan([trial for trial in plan.trials if trial.variant == "plain"], [])
    deadline, running = launch.Deadline(1.0), Progress.running

    def late(self: Progress, *report: Any) -> None:
        object.__setattr__(deadline, "begun", time.monotonic() - 3600)
        running(self, *report)

    monkeypatch.setattr(Progress, "running", late)
    outcome = run_on_ray(plain, store, console, dataclasses.replace(cluster, deadline=deadline))
    assert outcome.interrupted
    assert outcome.out_of_time
    assert not outcome.failed
    assert "1 hour (--max-hours) are over. Stopping" in printed(console)
    states = {trial.id: trial.state for trial in planned(file, store).trials if trial.variant == "plain"}
    assert "half-done" in states.values()
    assert store.leased() == set()


@pytest.mark.slow
def test_a_store_that_cannot_be_written_is_tried_again_and_reported(
    cluster: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_tune, "RETRIES", 1)
    file = tmp_path / "sweep.yaml"
    file.write_text(TINY.replace("seeds: [0, 1, 2, 3]", "seeds: [0]"))
    outcome = run_on_ray(planned(file, Store(tmp_path)), Store("/proc/clray"), quiet(), cluster)
    (reason,) = outcome.failed.values()
    assert reason.startswith("ClusterError: 2 attempts: StoreError: /proc/clray/")
    assert "cannot be written" in reason


@pytest.mark.slow
def test_a_trial_that_kills_its_process_takes_no_other_of_its_pack_along(
    cluster: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clray.cluster import trainable

    monkeypatch.setattr(cluster_tune, "RETRIES", 0)

    class Deadly(trainable.PackTrainable):
        def step(self) -> dict[str, Any]:
            if self._waiting[0].trial.seed == 1:
                os._exit(7)
            return super().step()

    monkeypatch.setattr(trainable, "PackTrainable", Deadly)
    file, store = tmp_path / "sweep.yaml", Store(tmp_path / "results")
    file.write_text(TINY.replace("seeds: [0, 1, 2, 3]", "seeds: [0, 1, 2]"))
    plan = planned(file, store)
    outcome = run_on_ray(plan, store, quiet(), cluster)
    first, deadly, last = (t.id for t in plan.trials)
    assert set(outcome.finished) == {first, last} == store.finished()
    assert "1 attempts: its worker process died" in outcome.failed[deadly]
    assert "its worker process died" in (store.failure(deadly) or {})["error"]


GREEDY = (
    SWEEP[: SWEEP.index("  packed")]
    + """
  quarter: {method: er, lr: 0.1, memories: 20, replay_batch: 5, resources: {cpu: 0.5, gpu: 0.25}}
  whole: {method: er, lr: 0.2, memories: 20, replay_batch: 5, resources: {cpu: 0.5, gpu: 1}}
"""
)


@pytest.fixture
def greedy(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that need more GPU memory the larger their seed: 0 fits anything, 1 half a GPU, 2 a whole one, 3 none."""
    from clray.cluster import trainable

    class Greedy(trainable.PackTrainable):
        def step(self) -> dict[str, Any]:
            import torch

            from clray.execution import Execution

            share, begin = self._resources["GPU"], Execution._begin

            def begin_hungry(execution: Execution) -> None:
                begin(execution)
                advance = execution._training.advance

                def allocate() -> Any:
                    if execution.progress > 0.1 and share < (0, 0.5, 1, 2)[execution.trial.seed]:
                        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
                    return advance()

                execution._training.advance = allocate  # type: ignore[method-assign]

            Execution._begin = begin_hungry  # type: ignore[method-assign]
            try:
                return super().step()
            finally:
                Execution._begin = begin  # type: ignore[method-assign]

    monkeypatch.setattr(trainable, "PackTrainable", Greedy)


@pytest.mark.slow
def test_out_of_gpu_memory_is_tried_once_more_with_a_larger_share(
    greedy: None, cluster: Options, tmp_path: Path
) -> None:
    file, store, console = tmp_path / "sweep.yaml", Store(tmp_path / "results"), quiet()
    file.write_text(GREEDY)
    plan = planned(file, store)
    ids = {(t.variant, t.trial.seed): t.id for t in plan.trials}
    outcome = run_on_ray(plan, store, console, cluster)

    fits = [("quarter", 0), ("quarter", 1), ("whole", 0), ("whole", 1), ("whole", 2)]
    assert sorted(outcome.finished) == sorted(ids[key] for key in fits)
    assert set(outcome.retried) == {ids["quarter", seed] for seed in (1, 2, 3)}
    assert set(outcome.failed) == {ids["quarter", 2], ids["quarter", 3], ids["whole", 3]}
    lines = printed(console).splitlines()
    for seed in (1, 2, 3):
        said = f"quarter seed {seed} ran out of GPU memory with 0.25 of a GPU: once more with 0.5 of a GPU"
        assert lines.count(said) == 1
    assert "ran out of GPU memory with 0.5 of a GPU: CUDA out of memory" in outcome.failed[ids["quarter", 2]]
    assert "ran out of GPU memory with a whole GPU: CUDA out of memory" in outcome.failed[ids["whole", 3]]
    assert "whole GPU" in (store.failure(ids["whole", 3]) or {})["error"]
    assert lines[-1].startswith(("[8/8]", "failed:"))
    assert not store.leased()
    assert numbers(store).keys() == set(outcome.finished)
    assert store.failure(ids["quarter", 1]) is None, "what was mended in the end is no failure"


@pytest.mark.slow
def test_an_embedded_ray_is_its_own_and_leaves_no_token(cluster: Options, ray_tmpdir: Path, tmp_path: Path) -> None:
    """Beside a running cluster, with its folder and even RAY_ADDRESS in the environment."""
    code = (
        "from clray.cluster.session import session\n"
        "with session(None, cpus=1) as ray:\n"
        "    from ray._private.worker import get_dashboard_url\n"
        "    print(ray.get_runtime_context().gcs_address, repr(get_dashboard_url()))\n"
    )
    env = environment(ray_tmpdir, HOME=str(tmp_path), RAY_ADDRESS=str(cluster.address))
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=GUARD)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    address, dashboard = run.stdout.split()
    assert address != cluster.address
    assert dashboard in ("''", "None")
    assert not (tmp_path / ".ray").exists()


def test_auto_is_the_cluster_of_ray_start_and_nobody_s_embedded_ray(
    cluster: Options, ray_tmpdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster here stands for a stranger's Ray: it runs, and no `ray start` has recorded it."""
    from ray._private.services import find_gcs_addresses

    from clray.cluster.session import session

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    find_gcs_addresses.cache_clear()
    assert cluster.address in find_gcs_addresses(), "Ray itself would join it"
    recorded = ray_tmpdir / "ray" / "ray_current_cluster"
    recorded.unlink(missing_ok=True)
    with pytest.raises(ClusterError, match=r"--address auto: `ray start` has made this machine part of no cluster"):
        session("auto").__enter__()
    recorded.write_text(str(cluster.address))
    with session("auto") as ray:
        assert ray.get_runtime_context().gcs_address == cluster.address
    recorded.write_text("127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        session("auto").__enter__()
    recorded.unlink()
    monkeypatch.setenv("RAY_ADDRESS", str(cluster.address))
    with session("auto") as ray:
        assert ray.get_runtime_context().gcs_address == cluster.address


def test_the_longest_come_first_and_packs_stay_together(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    plan = planned(file, Store(tmp_path))
    seconds = {"packed": 1.0, "shared": 3.0}
    trials = [dataclasses.replace(t, seconds=seconds[t.variant]) for t in plan.trials]
    tasks, by_id = [Options().task(t, gpus=True) for t in trials], {t.id: t for t in trials}
    packs = placement.packs(tasks, by_id)
    assert [(len(p), p[0].variant) for p in packs] == [(4, "packed"), *[(1, "shared")] * 4]
    assert placement.trials_at_once(tasks[4:], by_id, [{"CPU": 8.0, "GPU": 1.0}]) == 4
    assert placement.trials_at_once(tasks[:4], by_id, [{"CPU": 8.0}, {"CPU": 4.0}]) == 12


def test_what_others_run_is_waited_for_and_what_they_leave_is_done(
    kernels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other launches hold three of four trials: one finishes, one fails, and one is released unfinished."""
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.1)
    file, store, whole = tmp_path / "sweep.yaml", Store(tmp_path / "results"), Store(tmp_path / "whole")
    file.write_text(TINY)
    run_here(planned(file, whole), whole, quiet())
    plan, console = planned(file, store), quiet()
    finished, failed, dropped, mine = (t.id for t in plan.trials)
    store.write_failure(dropped, {"error": "an older one, of before this launch"})
    plan = planned(file, store)
    holds = {id: acquire(store, id, "another launch", progress=0.5) for id in (finished, failed, dropped)}

    def others() -> None:
        record = whole.read(finished)
        assert isinstance(record, Record)
        while "Waiting for" not in printed(console):
            time.sleep(0.05)
        store.write(record)
        store.write_failure(failed, {"error": "it burned"})
        for hold in holds.values():
            hold.release()

    thread = threading.Thread(target=others)
    thread.start()
    outcome = run_here(plan, store, console)
    thread.join()

    assert sorted(outcome.finished) == sorted([mine, dropped])
    assert outcome.elsewhere == {finished: holds[finished].lease.owner}
    assert outcome.failed == {failed: f"it burned (on {holds[failed].lease.owner})"}
    text = printed(console)
    assert f"Waiting for what other launches run: packed seed 0 ({holds[finished].lease.owner}), packed seed" in text
    assert f"Taking over what they left: packed seed 2 ({holds[dropped].lease.owner})" in text
    assert f" s by {holds[finished].lease.owner}; " in text
    assert numbers(store) == {id: record for id, record in numbers(whole).items() if id != failed}


def test_ctrl_c_ends_the_waiting_for_others(kernels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    file, store, console = tmp_path / "sweep.yaml", Store(tmp_path / "results"), quiet()
    file.write_text(TINY.replace("seeds: [0, 1, 2, 3]", "seeds: [0]"))
    plan = planned(file, store)
    hold = acquire(store, plan.trials[0].id, "another launch")
    monkeypatch.setattr(launch.time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    assert run_here(plan, store, console) == Outcome(interrupted=True)
    hold.release()


def test_the_first_ctrl_c_is_granted_between_two_steps(kernels: None, tmp_path: Path) -> None:
    import signal

    from clray.execution import Execution

    file, store, whole = tmp_path / "sweep.yaml", Store(tmp_path / "results"), Store(tmp_path / "whole")
    file.write_text(TINY.replace("seeds: [0, 1, 2, 3]", "seeds: [0, 1]"))
    step, console = Execution.step, quiet()
    steps = []

    def hit(self: Execution) -> None:
        steps.append(self)
        signal.raise_signal(signal.SIGINT)
        step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Execution, "step", hit)
        outcome = run_here(planned(file, store), store, console)
    assert outcome == Outcome(interrupted=True)
    assert len(steps) == 1
    assert "Stopping" in printed(console)
    assert [t.state for t in planned(file, store).trials] == ["half-done", "to do"]
    run_here(planned(file, store), store, quiet())
    run_here(planned(file, whole), whole, quiet())
    assert numbers(store) == numbers(whole)
