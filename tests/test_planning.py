"""The plan: finished, half-done, stale and missing trials, and their cost."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clray import equal_code, planning
from clray.analysis.gather import gather, read
from clray.checkpoints import Checkpoints
from clray.cli import app
from clray.errors import DataError
from clray.execution import Execution
from clray.loading import load_sweep
from clray.planning import Planned, plan
from clray.provenance import is_fresh
from clray.selection import Selection
from clray.store import Store
from clray.tracks import TRACKS

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def look(tiny: Path, store: Store, *only: str):
    return plan({"tiny": load_sweep(tiny, Selection(only=only))}, store)


def finish(planned: Planned, store: Store) -> None:
    execution = Execution(planned.task(), store)
    while not execution.done:
        execution.step()


def test_the_four_states(tiny, store, monkeypatch):
    first = look(tiny, store, "online", "er")
    assert [t.state for t in first.trials] == ["to do"] * 4
    finish(first.trials[0], store)
    finish(first.trials[2], store)
    begun = Execution(first.trials[1].task(), store)
    begun.step()
    begun.save()
    assert [t.state for t in look(tiny, store, "online", "er").trials] == ["finished", "half-done", "finished", "to do"]

    # The code of one method changes: its finished record is stale, its half-done trial goes on.
    real = planning.code_digest
    monkeypatch.setattr(planning, "code_digest", lambda t: "changed" if t.method == "er" else real(t))
    found = look(tiny, store, "online", "er")
    assert [t.state for t in found.trials] == ["finished", "half-done", "stale", "to do"]
    assert [t.variant for t in found.left()] == ["online", "er"]
    assert [t.state for t in found.left(rerun_stale=True)] == ["half-done", "stale", "to do"]
    assert [t.state for t in found.in_state("finished", "stale")] == ["finished", "stale"]


def test_a_record_of_code_that_gives_the_same_numbers_is_finished(tiny, store, monkeypatch, tmp_path):
    [planned, _] = look(tiny, store, "online").trials
    finish(planned, store)
    monkeypatch.setattr(planning, "code_digest", lambda trial: "f" * 16)
    assert look(tiny, store, "online").trials[0].state == "stale"
    monkeypatch.setattr(equal_code, "FILE", tmp_path / "equal_code.json")
    equal_code.add_pair(planned.code, "f" * 16, "a refactoring", equal_code.FILE)
    assert look(tiny, store, "online").trials[0].state == "finished"
    monkeypatch.undo()
    equal_code._shipped.cache_clear()


def test_a_record_of_a_method_that_is_gone_is_stale(tiny, store):
    [planned, _] = look(tiny, store, "online").trials
    finish(planned, store)
    record = store.read(planned.id)
    assert is_fresh(record)
    record.trial = record.trial.model_copy(update={"method": "gone"})
    assert not is_fresh(record)


def test_a_trial_that_two_variants_share_is_there_once(tiny, store):
    tiny.write_text(tiny.read_text().replace("  online:", "  twin: {method: online, lr: 0.01}\n  online:"))
    assert len(look(tiny, store, "online", "twin").trials) == 2


def test_two_sweeps_share_records(tiny, store, tmp_path):
    finish(look(tiny, store, "online").trials[0], store)
    other = tmp_path / "other.yaml"
    other.write_text(tiny.read_text().replace("  online:", "  renamed:").replace("[online, er]", "[renamed]"))
    assert [t.state for t in look(other, store, "renamed").trials] == ["finished", "to do"]


def test_data_that_is_insisted_on_must_be_had(tiny, store, monkeypatch, tmp_path):
    monkeypatch.delenv("CLRAY_DATA", raising=False)
    monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "empty"))
    tiny.write_text(tiny.read_text().replace("source: embedded", "source: files"))
    with pytest.raises(DataError, match="clray data fetch mnist"):
        look(tiny, store, "online")


def test_records_of_other_data_are_others(tiny, store):
    finish(look(tiny, store, "online").trials[0], store)
    planned = look(tiny, store, "online").trials[0]
    assert planned.trial.id("of other data") != planned.id


def test_seconds_are_the_record_s_or_an_estimate(tiny, store):
    before = look(tiny, store, "online").trials
    assert all(t.seconds > 0 for t in before)
    finish(before[0], store)
    after = look(tiny, store, "online").trials[0]
    assert after.seconds == store.read(after.id).undisturbed_seconds != before[0].seconds


def test_reference_runs_tell_how_long_trials_take_of_which_the_store_has_none(tiny, store):
    of_store = look(tiny, store, "online").trials[0]
    finish(of_store, store)
    record = store.read(of_store.id)
    shipped = dataclasses.replace(record, provenance={"seconds": 1234.5, "code": "any"})
    sweeps = {"tiny": load_sweep(tiny, Selection(only=("online",)))}
    elsewhere = plan(sweeps, Store(store.path("elsewhere")), reference=[shipped])
    assert [(t.state, t.seconds) for t in elsewhere.trials] == [("to do", 1234.5)] * 2
    here = plan(sweeps, store, reference=[shipped])
    assert [t.seconds for t in here.trials] == [record.undisturbed_seconds] * 2


def test_an_estimate_grows_with_the_work(tiny, store):
    from clray.vision.training import estimate

    def seconds(*changes: str) -> float:
        return estimate(load_sweep("mer/rotations", Selection(only=("mer-5120",), set=changes)).cells[0].trial)

    assert seconds() > 5 * seconds("variants.mer-5120.batches_per_example=1") > 0
    assert seconds() > 1.5 * seconds("benchmark.train_per_task=500")


def test_a_failure_is_shown_until_the_trial_is_finished(tiny, store):
    planned = look(tiny, store, "online").trials[0]
    store.write_failure(planned.id, {"error": "it died"})
    again = look(tiny, store, "online").trials[0]
    assert again.failure == {"error": "it died"}
    assert again.state == "to do"
    finish(again, store)
    assert look(tiny, store, "online").trials[0].failure is None


def test_a_torn_record_is_a_problem_and_its_trial_to_do(tiny, store):
    planned = look(tiny, store, "online").trials[0]
    finish(planned, store)
    Path(store.path("records", f"{planned.id}.parquet")).write_bytes(b"torn")
    found = look(tiny, store, "online")
    assert found.trials[0].state == "to do"
    assert [p.path for p in found.problems] == [store.path("records", f"{planned.id}.parquet")]


def test_a_task_carries_what_the_trial_may_use(tiny, store):
    tiny.write_text(tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1]\nresources: {cpu: 2}"))
    planned = look(tiny, store, "online").trials[0]
    assert planned.task().threads == 2
    assert planned.task(device="cuda", rerun=True).rerun
    assert planned.task().trial.seed == 0


def test_each_sweep_of_a_launch_reads_its_own_data(store, monkeypatch):
    """Stable SGD's second experiment has sweeps on MNIST and one on CIFAR-100."""
    from clray.reproduction import load_reproduction
    from clray.vision import data

    def locate(name: str, source: str, download: bool) -> dict[str, str]:
        return {"name": name, "source": "cache", "fingerprint": f"of {name}"}

    monkeypatch.setattr(data, "locate", locate)
    planned = plan(load_reproduction("stable_sgd_2").sweeps(Selection()), store).trials
    read = {trial.sweep: trial.data["name"] for trial in planned}
    assert read == {
        "stable_sgd/experiment_2_permuted": "mnist",
        "stable_sgd/experiment_2_rotated": "mnist",
        "stable_sgd/experiment_2_cifar100": "cifar100",
    }
    assert {tuple(trial.metrics) for trial in planned} == {("ACC", "F")}


def test_checkpoints_are_neither_read_nor_looked_at_one_by_one(tiny, store, monkeypatch):
    first = look(tiny, store, "er").trials[0]
    begun = Execution(first.task(), store)
    begun.step()
    begun.save()
    read: list[str] = []
    real = Store._read
    monkeypatch.setattr(Checkpoints, "_opened", lambda *_: pytest.fail("a checkpoint was read"))
    monkeypatch.setattr(Store, "_read", lambda store, relative: read.append(relative) or real(store, relative))
    assert [t.state for t in look(tiny, store, "er").trials] == ["half-done", "to do"]
    assert read == [f"running/{first.id}.parquet"]


def test_a_torn_checkpoint_is_one_until_the_trial_is_taken_up(tiny, store):
    first = look(tiny, store, "er").trials[0]
    begun = Execution(first.task(), store)
    begun.step()
    begun.save()
    Path(store.path("checkpoints", f"{first.id}.ckpt")).write_bytes(b"torn")
    assert look(tiny, store, "er").trials[0].state == "half-done"
    finish(first, store)
    assert look(tiny, store, "er").trials[0].state == "finished"


def test_a_record_with_nonsense_is_reported_and_run_again(tiny, store):
    """Taken for finished it would never be mended."""
    import dataclasses

    planned = look(tiny, store, "online").trials[0]
    finish(planned, store)
    good = store.read(planned.id)
    for spoilt in (
        dataclasses.replace(good, measurements=[]),
        dataclasses.replace(good, measurements=[m._replace(value=float("nan")) for m in good.measurements]),
        dataclasses.replace(good, provenance={**good.provenance, "seconds": "long"}),
        dataclasses.replace(good, provenance={**good.provenance, "gpu_memory": None}),
        dataclasses.replace(good, data={"fingerprint": 3}),
        dataclasses.replace(good, sweep=None),
    ):
        store.write(spoilt)
        found = look(tiny, store, "online")
        assert found.trials[0].state == "to do"
        assert [p.path for p in found.problems] == [store.path("records", f"{planned.id}.parquet")]
        finish(found.trials[0], store)
        assert store.read(planned.id).measurements == good.measurements


def test_a_store_that_may_not_be_written_is_planned_all_the_same(tiny, store, monkeypatch):
    planned = look(tiny, store, "online").trials[0]
    finish(planned, store)
    store.write_failure(planned.id, {"error": "of another launch"})

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(store, "storage", ReadOnly(store.storage, refuse))
    assert look(tiny, store, "online").trials[0].state == "finished"


class ReadOnly:
    """A file system that refuses to be changed."""

    def __init__(self, files: object, refuse: object) -> None:
        self._files, self._refuse = files, refuse

    def __getattr__(self, name: str) -> object:
        changes = name.startswith(("delete", "move", "write", "create", "remove", "renew", "take_over", "stamp"))
        return self._refuse if changes else getattr(self._files, name)


class TestDataOfTheTable:
    """A plan counts the records that a table shows, on a machine that lacks their data, too."""

    def stored_elsewhere(self, tiny, store, *, partial: str = "") -> Any:
        """The first trial finished on a machine that has the whole data, or a part of it."""
        first = look(tiny, store, "er").trials[0]
        finish(first, store)
        record = store.read(first.id)
        record.data = {"name": "mnist", "source": "cache", "fingerprint": "whole"} | (
            {"partial": partial} if partial else {}
        )
        record.id = record.trial.id("whole")
        store.write(record)
        Path(store.path("records", f"{first.id}.parquet")).unlink()
        return record

    def test_records_on_the_whole_data_count_where_only_embedded_data_is(self, tiny, store):
        record = self.stored_elsewhere(tiny, store)
        found = look(tiny, store, "er")
        assert [t.state for t in found.trials] == ["finished", "to do"]
        assert found.trials[0].id == record.id
        assert [t.data["source"] for t in found.trials] == ["cache", "embedded"]
        assert found.other_ids == []
        table = gather(load_sweep(tiny, Selection(only=("er",))), ["er"], read(store))
        assert [run.id for run in table.runs] == [t.id for t in found.in_state("finished")]

    def test_a_part_of_the_data_is_no_better(self, tiny, store):
        self.stored_elsewhere(tiny, store, partial="a tenth")
        assert [t.state for t in look(tiny, store, "er").trials] == ["to do", "to do"]

    def test_data_that_is_not_here_is_needed_for_what_has_no_record_alone(self, tiny, store, monkeypatch):
        self.stored_elsewhere(tiny, store)
        module = importlib.import_module(TRACKS["vision"])

        def missing(*_: Any) -> Any:
            raise DataError("no files here")

        monkeypatch.setattr(module, "data", missing)
        selection = Selection(only=("er",), seeds=(0,))
        [trial] = plan({"tiny": load_sweep(tiny, selection)}, store).trials
        assert trial.state == "finished"
        with pytest.raises(DataError, match="no files here"):
            look(tiny, store, "er")


class TestOtherIds:
    """A trial to do whose record lies in the store under another id is named."""

    def differences(self, tiny, store, *changes: str) -> list[tuple[str, ...]]:
        sweep = load_sweep(tiny, Selection(only=("er",), set=changes))
        return [other.differences for other in plan({"tiny": sweep}, store).other_ids]

    def test_of_the_same_variant_with_another_setting(self, tiny, store):
        for trial in look(tiny, store, "er").trials:
            finish(trial, store)
        assert self.differences(tiny, store) == []
        assert self.differences(tiny, store, "variants.er.lr=0.07") == [("hyperparameters.lr",)] * 2
        assert self.differences(tiny, store, "seeds=[7]") == []
        found = look(tiny, store, "er", "online").other_ids
        assert found == []

    def test_a_setting_that_was_added_or_taken_away(self, tiny, store, monkeypatch):
        first = look(tiny, store, "er").trials[0]
        finish(first, store)
        record = store.read(first.id)
        settings = {**record.trial.hyperparameters, "gone": 1}
        record.trial = record.trial.model_copy(update={"hyperparameters": settings})
        record.trial.__dict__.pop("declaration", None)
        record.id, record.sweep, record.variant = record.trial.id(record.data["fingerprint"]), "another", "name"
        store.write(record)
        Path(store.path("records", f"{first.id}.parquet")).unlink()
        found = look(tiny, store, "er")
        [other] = found.other_ids
        assert (other.name, other.record, other.differences) == (first.name, record.id, ("hyperparameters.gone",))
        assert [t.state for t in found.trials] == ["to do", "to do"]

    def test_of_other_data(self, tiny, store):
        first = look(tiny, store, "er").trials[0]
        finish(first, store)
        record = store.read(first.id)
        record.data = {**record.data, "fingerprint": "another"}  # embedded, too
        record.id = record.trial.id("another")
        store.write(record)
        Path(store.path("records", f"{first.id}.parquet")).unlink()
        [other] = look(tiny, store, "er").other_ids
        assert other.differences == ("data",)

    def test_one_line_says_so(self, tiny, store):
        for trial in look(tiny, store, "er").trials:
            finish(trial, store)
        command = ["plan", str(tiny), "--only", "er", "--results", store.uri, "--set", "variants.er.lr=0.07"]
        done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
        first = look(tiny, store, "er").trials[0].id
        said = f"to do, with a record under another id: er seed 0 (record {first}) and 1 more; what differs: "
        assert said + f"hyperparameters.lr; see `clray show {first}`" in done.output
