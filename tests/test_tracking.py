"""The publisher against wandb itself: offline runs read back from disk, online runs sent to a stand-in server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner
from waiting import GUARD, wait_for

from clray import tracking
from clray.cli import app
from clray.commands.publish import _dashboard
from clray.commands.target import selected, target_of
from clray.dashboards import Dashboard, Section
from clray.metrics import Measurement
from clray.record import Record
from clray.resources import Resources
from clray.selection import Selection
from clray.store import Store
from clray.sweep import Cell
from clray.tracking import Follower, Publication, TrackingError, content
from clray.tracking.notes import Notes
from clray.trial import Trial

sys.path.insert(0, str(Path(__file__).parent))
from wandb_offline import read_run
from wandb_server import Server

ROOT = Path(__file__).resolve().parent.parent
KEY = "0123456789abcdef" * 2 + "keyisdum"
TASKS = 3
POINTS = TASKS + 1
"""Rows of a whole history: before any training, and after each task."""


def trial(seed: int) -> Trial:
    return Trial(
        version=1,
        track="vision",
        benchmark={"name": "mnist-rotations", "tasks": TASKS},
        model={"name": "mlp"},
        method="er",
        hyperparameters={"lr": 0.1, "memories": 200},
        evaluate="after_task",
        randomness="clray",
        engine="auto",
        precision="float32",
        seed=seed,
        task_order=None,
    )


def record(seed: int = 0, points: int = POINTS, last: float = 0.5) -> Record:
    """A trial of three tasks after ``points`` evaluations; finished when that is all of them."""
    t = trial(seed)
    values = {(i, j): 0.1 * i + 0.01 * j + 0.001 * seed for i in range(POINTS) for j in range(TASKS)}
    values[TASKS, 0] = last
    return Record(
        id=t.id("print"),
        trial=t,
        data={"name": "mnist", "source": "embedded", "fingerprint": "print"},
        measurements=[Measurement(100 * i, i, j, "accuracy", v) for (i, j), v in values.items() if i < points],
        provenance={"seconds": 12.5, "code": "abc"},
        status="finished" if points == POINTS else "running",
        variant="er-200",
        sweep="mer/rotations",
    )


def publication(store: Store, seeds: range = range(2), **changes: Any) -> Publication:
    facts: dict[str, Any] = {
        "sweep": "mer/rotations",
        "variants": {trial(seed).declaration: "er-200" for seed in seeds},
        "store": store.uri,
        "mode": "offline",
        "project": "clray",
        "entity": None,
        "folder": store.uri,
        "paper": "mer",
        "table": "mer_rotations",
        "again": "clray publish mer/rotations",
    }
    return Publication(**(facts | changes))


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login, no settings, and wandb's own folders in the test's."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    for seed in range(2):
        store.write(record(seed))
    return store


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def followers() -> Iterator[list[Follower]]:
    """A list of processes; all that a test adds to it are killed at the end of the test."""
    started: list[Follower] = []
    yield started
    for follower in started:
        if follower.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(follower.pid, signal.SIGKILL)


SCRIPT = """
import json, sys
from clray import tracking
from clray.dashboards import Dashboard
from clray.errors import ClrayError
job = json.load(sys.stdin)
tracking.wandb_runs.CONFIRM_SECONDS = 1.0
try:
    page = job["dashboard"] and Dashboard.of_plain(job["dashboard"])
    print(json.dumps(vars(tracking.publish(tracking.Publication(**job["publication"]), job["table"], page))))
except ClrayError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def online(
    url: str, wanted: Publication, table: dict[str, str] | None = None, page: Dashboard | None = None
) -> subprocess.CompletedProcess[str]:
    """Publish in a process that is logged in at the stand-in server."""
    wanted = dataclasses.replace(wanted, mode="online")
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    environment |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
    dashboard = page and dataclasses.asdict(page)
    job = json.dumps({"publication": dataclasses.asdict(wanted), "table": table, "dashboard": dashboard})
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, input=job, capture_output=True, text=True, env=environment, timeout=GUARD)


def log_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "1")  # wandb sends rows every 15 seconds by default


def offline_runs(store: Store, id: str) -> list[Path]:
    return sorted(Path(store.uri).glob(f"wandb/offline-run-*-{id}"))


# -- what is published ---------------------------------------------------------------------------------------------


def test_history_has_a_row_for_every_evaluation() -> None:
    rows = tracking.history(record(points=2))
    assert rows[0] == {
        "examples": 0,
        "trained_tasks": 0,
        "accuracy/task_00": 0.0,
        "accuracy/task_01": 0.01,
        "accuracy/task_02": 0.02,
        "accuracy/mean": pytest.approx(0.01),
    }
    assert rows[1]["examples"] == 100
    assert rows[1]["accuracy/mean_seen"] == rows[1]["accuracy/task_00"] == 0.1
    assert rows[1]["accuracy/mean"] == pytest.approx(0.11)


def test_an_offline_run_holds_all_of_a_record(store: Store) -> None:
    whole = record(1)
    outcome = tracking.publish(publication(store), {"table.md": "| ours | theirs |"})
    assert (outcome.published, outcome.declared, outcome.failures) == (2, 2, [])
    assert outcome.message() == f"W&B: 2 of 2 trials published: {store.path('wandb')}"

    (folder,) = offline_runs(store, whole.id)
    found = read_run(folder)
    assert (found.run.run_id, found.run.display_name) == (whole.id, "er-200/1")
    assert (found.run.project, found.run.run_group, found.run.job_type) == ("clray", "mer/rotations", "er-200")
    assert list(found.run.tags) == ["mer", "mer_rotations", "seed:1", "embedded", "sweep:mer/rotations"]
    labels = {"variant": "er-200", "sweep": "mer/rotations", "data": whole.data, "provenance": whole.provenance}
    assert {k: v for k, v in found.config.items() if k != "_wandb"} == whole.trial.model_dump(mode="json") | labels
    # wandb 0.30 also notes each metric that the pattern has matched.
    assert [(m.glob_name, m.step_metric) for m in found.metrics if m.glob_name] == [("accuracy/*", "examples")]

    rows = [{k: v for k, v in row.items() if not k.startswith("_")} for row in found.history]
    assert rows[:POINTS] == tracking.history(whole)
    assert [row["_step"] for row in found.history] == list(range(POINTS + 1))
    assert {k: found.summary[k] for k in whole.metrics} == whole.metrics
    assert (found.summary["seconds"], found.summary["status"], found.exit_code) == (12.5, "finished", 0)

    table = json.loads((folder / "files" / rows[POINTS]["accuracy_matrix/path"]).read_text())
    assert table["columns"] == ["trained_tasks", "eval_task", "accuracy"]
    assert table["data"] == [[m.trained_tasks, m.eval_task, m.value] for m in whole.measurements]

    (folder,) = offline_runs(store, "table-*")
    found = read_run(folder)
    assert (found.run.run_group, found.run.job_type, found.exit_code) == ("mer/rotations", "table", 0)
    assert [(a.type, a.name) for a in found.artifacts] == [("table", "mer-rotations-table")]
    assert [entry.path for entry in found.artifacts[0].manifest.contents] == ["table.md"]


def test_publishing_offline_again_adds_only_what_changed(store: Store) -> None:
    wanted, id = publication(store), record(1).id
    tracking.publish(wanted, {"table.md": "one"})
    before = sorted(os.listdir(store.path("wandb")))

    again = tracking.publish(wanted, {"table.md": "one"})
    assert (len(again.sent), len(again.unchanged)) == (0, 2)
    assert sorted(os.listdir(store.path("wandb"))) == before

    # W&B cannot rewrite a history: other numbers are another run, and the first stays.
    store.write(record(1, last=0.75))
    again = tracking.publish(wanted, {"table.md": "two"})
    assert (again.sent, len(again.unchanged)) == ([id], 1)
    assert len(offline_runs(store, id)) == 1
    (folder,) = offline_runs(store, f"{id}-rows-*")
    assert read_run(folder).summary["accuracy/task_00"] == 0.75
    assert len(offline_runs(store, "table-*")) == 1

    # The same numbers in a second sweep: the same run, with one more tag.
    tracking.publish(dataclasses.replace(wanted, sweep="mer/buffers"))
    (folder,) = offline_runs(store, f"{id}-rows-*")
    found = read_run(folder)
    assert found.run.run_group == "mer/rotations"
    assert {"sweep:mer/rotations", "sweep:mer/buffers"} <= set(found.run.tags)
    assert tracking.publish(wanted).sent == []


def test_a_half_written_offline_run_is_written_anew(store: Store) -> None:
    id = record(0).id
    torn = Path(store.path("wandb", f"offline-run-20200101_000000-{id}"))
    torn.mkdir(parents=True)
    (torn / f"run-{id}.wandb").write_bytes(b":W&B")
    assert tracking.publish(publication(store)).published == 2
    (folder,) = offline_runs(store, id)
    assert folder != torn
    assert len(read_run(folder).history) == POINTS + 1


def test_a_trial_that_another_process_publishes_is_left_to_it(store: Store) -> None:
    wanted, id = publication(store), record(0).id
    notes = Notes(wanted, id)
    assert notes.acquire()
    outcome = tracking.publish(wanted)
    assert (outcome.busy, outcome.published) == ([id], 1)
    notes.release()
    assert tracking.publish(wanted).published == 2


def test_records_that_are_torn_foreign_or_missing_are_told_apart(store: Store) -> None:
    Path(store.path("records", "0000000000000000.parquet")).write_bytes(b"PAR1")
    outcome = tracking.publish(publication(store, seeds=range(1, 4)))
    assert (outcome.declared, outcome.sent) == (3, [record(1).id])
    assert "0000000000000000.parquet: skipped: not a readable record" in outcome.message("clray publish X")
    assert outcome.message("clray publish X").endswith("the rest later: clray publish X")


# -- online --------------------------------------------------------------------------------------------------------


def test_online_runs_arrive_once(store: Store, server: Server) -> None:
    wanted = publication(store)
    done = online(server.url, wanted, {"table.md": "one"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["failures"] == []
    assert done.stderr == ""
    for seed in range(2):
        run = server.run(record(seed).id)
        assert (run.info["groupName"], run.info["jobType"], run.info["displayName"]) == (
            "mer/rotations",
            "er-200",
            f"er-200/{seed}",
        )
        assert run.info["tags"] == ["mer", "mer_rotations", f"seed:{seed}", "embedded", "sweep:mer/rotations"]
        assert run.config["hyperparameters"] == {"lr": 0.1, "memories": 200}
        assert (run.exitcode, run.finishes, run.summary["RA"]) == (0, 1, record(seed).metrics["RA"])
        sent = [{k: v for k, v in row.items() if not k.startswith("_")} for row in run.rows]
        assert sent[:POINTS] == tracking.history(record(seed))
        assert len(sent) == POINTS + 1
    assert "mer-rotations-table" in [artifact["artifactCollectionName"] for artifact in server.artifacts]

    lines = {key: list(run.lines) for key, run in server.runs.items()}
    assert json.loads(online(server.url, wanted, {"table.md": "one"}).stdout)["sent"] == []
    assert all(run.finishes == 1 for run in server.runs.values())

    # From a machine without the notes: the server's own count keeps every row single.
    shutil.rmtree(store.path("published"))
    assert len(json.loads(online(server.url, wanted).stdout)["sent"]) == 2
    assert {key: run.lines for key, run in server.runs.items()} == lines

    # Nothing of it stays on disk but the notes, and the key is nowhere.
    assert not Path(store.path("wandb")).exists()
    held = [path for path in Path(store.uri).parent.rglob("*") if path.is_file()]
    assert not [path for path in held if KEY.encode() in path.read_bytes()]


def test_a_server_that_refuses_the_rows_is_found_out(store: Store, server: Server) -> None:
    server.refuse["file_stream"] = 403  # wandb's own finish() calls this a success
    done = online(server.url, publication(store))
    assert done.returncode == 1
    assert "0 of 2 trials published" in done.stdout
    assert f"the server holds 0 of {POINTS + 1} rows" in done.stdout
    assert done.stdout.rstrip().endswith("the rest later: clray publish mer/rotations")
    server.refuse.clear()
    assert len(json.loads(online(server.url, publication(store)).stdout)["sent"]) == 2


def test_a_server_that_is_not_there_is_reported(store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = online(url, publication(store))
    assert done.returncode == 1
    assert f"trials published; {url} cannot be reached" in done.stdout
    assert "clray publish mer/rotations" in done.stdout


def test_without_a_key_nothing_begins(store: Store) -> None:
    with pytest.raises(TrackingError, match=r"no API key for https://api\.wandb\.ai: run `wandb login`"):
        tracking.publish(publication(store, mode="online"))
    assert not Path(store.path("published")).exists()


# -- pages ---------------------------------------------------------------------------------------------------------

PAGE = Dashboard(
    "mer_rotations",
    "MER on MNIST rotations, clray mer_rotations",
    [
        Section("Table 1", "page 7", "mer/rotations", {"er-200": "ER"}, ["RA", "BTI"], data=["print"]),
        Section("Own table", "", "mer/rotations-quick", {"er-200": "er-200"}, ["RA"]),
    ],
    text="| ours | theirs |",
)


def test_a_page_is_made_of_its_declaration() -> None:
    from clray.tracking.pages import page

    blocks = [block._to_model().model_dump(by_alias=True, exclude_none=True) for block in page(PAGE)]
    words = json.dumps(blocks)
    assert "| ours | theirs |" in words
    assert "ER: `er-200`" in words
    assert [block["children"][0]["text"] for block in blocks if block["type"] == "heading"] == [
        "Table 1 (page 7)",
        "Own table",
    ]
    first, second = (block["metadata"] for block in blocks if block["type"] == "panel-grid")
    drawn = [panel["config"] for panel in first["panelBankSectionConfig"]["panels"]]
    assert [c.get("metrics") for c in drawn] == [["RA"], ["BTI"], ["accuracy/mean_seen"], ["accuracy/mean"], None]
    assert {(c["groupBy"], c["groupAgg"], c["groupArea"]) for c in drawn[:4]} == {("variant.value", "mean", "stddev")}
    assert [c["xAxis"] for c in drawn[2:4]] == ["trained_tasks"] * 2

    (runs,) = first["runSets"]
    assert [(f["key"]["name"], f["op"], f["value"]) for f in runs["filters"]["filters"]] == [
        ("tags", "IN", ["sweep:mer/rotations"]),
        ("tags", "NIN", ["superseded"]),
        ("jobType", "IN", ["er-200"]),
        ("data.value.fingerprint", "IN", ["print"]),
    ]
    assert {"config:variant.value", "config:seed.value", "summary:RA", "summary:BTI"} <= set(
        runs["runFeed"]["columnOrder"]
    )
    assert len(second["runSets"][0]["filters"]["filters"]) == 3  # whatever data there is


@pytest.mark.slow
def test_a_reproduction_has_one_page_that_publishing_again_renews(store: Store, server: Server) -> None:
    wanted = publication(store)
    done = online(server.url, wanted, page=PAGE)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["failures"], outcome["no_page"], done.stderr) == ([], "", "")
    ((id, view),) = server.views.items()
    assert outcome["page"].endswith(f"--{id}")
    assert (view["displayName"], view["type"]) == (PAGE.title, "runs")
    assert json.loads(view["spec"])["blocks"]

    view["spec"] = by_hand = json.dumps({"blocks": [], "changed": "by hand"})
    assert json.loads(online(server.url, wanted, page=PAGE).stdout)["page"] == outcome["page"]
    assert server.views[id]["spec"] == by_hand  # nothing new to say
    # From a machine that knows nothing of the first publication, and with other verdicts.
    shutil.rmtree(store.path("published"))
    renewed = dataclasses.replace(PAGE, text="| ours | better |")
    assert json.loads(online(server.url, wanted, page=renewed).stdout)["page"] == outcome["page"]
    assert list(server.views) == [id]
    assert "better" in server.views[id]["spec"]


@pytest.mark.slow
def test_a_page_is_there_while_the_sweep_runs(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch, followers: list[Follower]
) -> None:
    log_in(server, monkeypatch)
    early = dataclasses.replace(PAGE, text="none yet")
    follower = tracking.start(publication(store, mode="online"), poll=0.2, dashboard=early)
    assert follower is not None
    followers.append(follower)
    wait_for(lambda: bool(server.views))
    assert "none yet" in server.views["view0"]["spec"]
    message = follower.stop(timeout=GUARD, dashboard=PAGE)
    assert "W&B: 2 of 2 trials published" in message
    assert f"page: {server.url}/tester/clray/reports/" in message
    assert list(server.views) == ["view0"]
    assert "ours" in server.views["view0"]["spec"]


def test_what_stands_in_the_way_of_a_page_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = tracking.publish(publication(store), dashboard=PAGE)
    assert (outcome.published, outcome.failures) == (2, [])
    assert "; no page: it is drawn by W&B from runs that are there: `wandb sync` them" in outcome.message()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"W&B: http://127\.0\.0\.1:9 cannot be reached"):
        tracking.pages.send_page(publication(store, mode="online"), PAGE)


@pytest.mark.slow
def test_a_page_counts_a_trial_that_was_run_again_once(store: Store, server: Server) -> None:
    wanted, id = publication(store), record(1).id
    assert online(server.url, wanted).returncode == 0
    store.write(record(1, last=0.75))
    done = online(server.url, wanted)
    assert json.loads(done.stdout)["failures"] == []
    earlier = server.run(id)
    assert earlier.info["tags"][-2:] == ["sweep:mer/rotations", "superseded"]
    assert (earlier.info["groupName"], earlier.config["hyperparameters"]["lr"]) == ("mer/rotations", 0.1)
    (other,) = (run for (_, name), run in server.runs.items() if name.startswith(f"{id}-rows-"))
    assert "superseded" not in other.info["tags"]
    assert other.summary["accuracy/task_00"] == 0.75

    # From a machine without the notes: the second run is found by its id, and nothing is sent twice.
    shutil.rmtree(store.path("published"))
    lines = {key: list(run.lines) for key, run in server.runs.items()}
    assert json.loads(online(server.url, wanted).stdout)["failures"] == []
    assert {key: run.lines for key, run in server.runs.items()} == lines


# -- following -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_running_trial_is_shown_live_and_then_finished(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch, followers: list[Follower]
) -> None:
    log_in(server, monkeypatch)
    late = record(7)
    store.write(record(7, points=2))
    follower = tracking.start(publication(store, seeds=range(8), mode="online"), poll=0.2)
    assert follower is not None
    followers.append(follower)
    run = server.run(late.id)
    wait_for(lambda: len(run.lines) == 2)
    assert run.exitcode is None
    store.write(record(7, points=3))
    store.write(late)
    wait_for(lambda: run.exitcode == 0)
    message = follower.stop({"mer/rotations": {"table.md": "one"}}, timeout=GUARD)
    assert "W&B: 3 of 8 trials published" in message
    assert [row["_step"] for row in run.rows] == list(range(POINTS + 1))
    assert run.summary["RA"] == late.metrics["RA"]
    assert "mer-rotations-table" in [artifact["artifactCollectionName"] for artifact in server.artifacts]


@pytest.mark.slow
def test_a_killed_publisher_is_made_up_for(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch, followers: list[Follower]
) -> None:
    log_in(server, monkeypatch)
    store.write(record(2, points=2))
    follower = tracking.start(publication(store, seeds=range(3), mode="online"), poll=0.2)
    assert follower is not None
    assert follower.pid
    followers.append(follower)
    run = server.run(record(2).id)
    wait_for(lambda: len(run.lines) == 2)
    os.killpg(follower.pid, signal.SIGKILL)
    store.write(record(2))
    message = follower.stop(timeout=GUARD)
    assert "the publisher ended early (exit code -9)" in message
    assert "the rest later: clray publish mer/rotations" in message
    assert len(run.lines) == 2
    assert not list(Path(store.path("published")).glob("follow-*/clray-wandb-*"))
    done = json.loads(online(server.url, publication(store, seeds=range(3))).stdout)
    assert len(done["sent"] + done["unchanged"]) == 3
    assert [row["_step"] for row in run.rows] == list(range(POINTS + 1))
    assert (run.exitcode, len(server.runs)) == (0, 3)


def test_a_follower_without_a_server_costs_a_sweep_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, followers: list[Follower]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    follower = tracking.start(publication(store, mode="online"), poll=0.2)
    assert follower is not None
    followers.append(follower)
    message = follower.stop(timeout=GUARD)
    assert "W&B: 0 of 2 trials published; http://127.0.0.1:9 cannot be reached" in message
    assert "the rest later: clray publish mer/rotations" in message
    assert follower.log
    assert KEY not in follower.log.read_text()


def test_a_follower_whose_sweep_is_gone_ends_after_a_last_pass(store: Store) -> None:
    wanted = json.dumps(dataclasses.asdict(publication(store)))
    code = """
import json, os, sys
from clray import tracking
print(tracking.start(tracking.Publication(**json.loads(sys.argv[1])), poll=0.2).pid, flush=True)
os._exit(0)
"""
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, wanted], capture_output=True, text=True, env=environment)
    pid = int(done.stdout)

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
        except OSError:
            return True

    wait_for(gone)
    assert [len(offline_runs(store, record(seed).id)) for seed in range(2)] == [1, 1]


def test_a_follower_that_cannot_start_says_so(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    follower = tracking.start(publication(store, folder=str(tmp_path / "file")))
    assert follower is not None
    assert "the publisher could not be started" in follower.stop()
    assert tracking.start(publication(store, mode="off")) is None


# -- the choice of server, mode and place --------------------------------------------------------------------------


def test_a_login_is_found_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.default_mode() == "off"
    (tmp_path / "netrc").write_text(f"machine example.org\n  login user\n  password {KEY}\n")
    assert not tracking.logged_in()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings").write_text("[default]\nbase_url = https://example.org\n")
    assert (tracking.base_url(), tracking.default_mode()) == ("https://example.org", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1/")
    assert (tracking.base_url(), tracking.default_mode()) == ("http://127.0.0.1:1", "off")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert tracking.default_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracking.default_mode() == "offline"


@pytest.mark.parametrize(
    ("mode", "without_a_key", "with_one", "asked"),
    [
        ("dryrun", "offline", "offline", "offline"),
        ("offline", "offline", "offline", "offline"),
        ("DRYRUN", "offline", "offline", "offline"),
        ("disabled", "off", "off", "off"),
        ("run", "off", "online", "online"),
        ("shared", "off", "online", "online"),
        ("online", "off", "online", "online"),
        ("", "off", "online", None),
        ("nonsense", "off", "online", None),
    ],
)
def test_the_words_that_wandb_has_for_a_mode(
    mode: str, without_a_key: str, with_one: str, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    assert tracking.asked_mode() == asked
    assert tracking.default_mode() == without_a_key
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert tracking.default_mode() == with_one


def test_publishing_does_as_wandb_mode_says(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for mode, said in (
        ("disabled", "W&B: nothing is published: WANDB_MODE=disabled\n"),
        ("dryrun", "; the rest later: clray publish "),
    ):
        monkeypatch.setenv("WANDB_MODE", mode)
        result = CliRunner().invoke(app, ["publish", str(tiny)], catch_exceptions=False)
        assert result.exit_code == 0
        assert said in result.stdout
    assert "--wandb offline" in result.stdout
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(TrackingError, match="no API key"):
        CliRunner().invoke(app, ["publish", str(tiny)], catch_exceptions=False)


NO_HOME = """
import os, pwd, sys
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
"""


@pytest.mark.parametrize("home", [None, "/dev/null/x"])
def test_a_home_that_cannot_be_written_is_done_without(store: Store, home: str | None) -> None:
    """wandb keeps what an offline run refers to beside it, and the rest in a folder that goes."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_")) and k not in ("HOME", "NETRC")
    }
    environment |= {"PYTHONPATH": str(ROOT), **({"HOME": home} if home else {})}
    job = {"publication": dataclasses.asdict(publication(store)), "table": {"table.md": "one"}, "dashboard": None}
    code = (NO_HOME if home is None else "") + SCRIPT + "\nprint(tracking.default_mode(), tracking.base_url())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(job), capture_output=True, text=True, timeout=120,
        env=environment, cwd=Path(store.uri).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    outcome, mode = done.stdout.splitlines()
    assert json.loads(outcome)["failures"] == []
    assert len(json.loads(outcome)["sent"]) == 2
    assert mode == "off https://api.wandb.ai"
    assert sorted(path.name for path in Path(store.uri).parent.iterdir()) == ["results"]
    assert Path(store.path("wandb", "data", "artifacts", "staging")).is_dir()


def test_a_folder_that_wandb_cannot_write_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", "/dev/null/x")
    with pytest.raises(TrackingError, match="Unable to write staging files to /dev/null/x") as caught:
        tracking.publish(publication(store))
    assert store.uri not in str(caught.value)


def test_no_name_of_a_machine_and_no_process_is_published(store: Store) -> None:
    one = record(0)
    machine = {"host": "node-1", "processor": "quick", "cores": 2}
    one.provenance |= {"machine": machine, "executions": [{"launch": "l", "host": "node-1", "pid": 7}]}
    one.variant = "er\x1b[2J"
    sent = content.config_of(one, "s", one.variant)
    assert sent["provenance"] == {"seconds": 12.5, "code": "abc", "machine": {"processor": "quick", "cores": 2}}
    assert "node-1" not in json.dumps(sent)
    assert one.provenance["machine"] == machine
    assert content.name_of(one, one.variant) == "er\\x1b[2J/0"


def test_the_page_of_a_part_is_no_reason_to_end(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A --set that is not for the variants that were not asked for; and offline nobody looks at those."""
    monkeypatch.chdir(tmp_path)
    text = tiny.read_text()
    tiny.write_text(
        text.replace(
            "  online: {method: online, lr: 0.01}", "  online: {method: online, lr: 0.01}\n  bad: {method: online}"
        )
    )
    target, store = target_of(str(tiny), selected(False, ["online"], None, None)), Store("results")
    for mode in ("online", "offline"):
        assert list(_dashboard(target, store, mode).sections[0].variants) == ["online"]
    tiny.write_text(text)
    whole = _dashboard(target_of(str(tiny), selected(False, ["online"], "0", None)), store, "online")
    assert {"online", "gem", "mer7"} <= set(whole.sections[0].variants)
    assert whole.command == f"clray publish {tiny}"


def test_a_publication_of_a_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("er-200", trial(0), Resources())]
    sweep: Any = SimpleNamespace(name="mer/rotations", paper="mer", selection=Selection(), cells=cells)
    with pytest.raises(TrackingError, match="no API key"):
        Publication.of(sweep, store, "online")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    wanted = Publication.of(sweep, store, "offline", table="mer_rotations")
    assert wanted == publication(
        store, seeds=range(1), project="theirs", again="clray publish mer/rotations --wandb offline"
    )
    sweep.selection = Selection(quick=True, seeds=(0,))
    changed = Publication.of(sweep, store, "offline", project="mine", entity="team", folder="/tmp")
    assert (changed.sweep, changed.project, changed.entity) == ("mer/rotations-quick", "mine", "team")


def test_importing_the_publisher_is_light() -> None:
    code = "import sys, clray.tracking; print(sorted({'wandb', 'pyarrow', 'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
