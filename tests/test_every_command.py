"""Every command of ``clray``: one right use with exit code 0, and one wrong use with its exit code and its message.

A command that is added to ``clray.cli`` without an entry here fails the first test. What each command does is tested
elsewhere; this file only holds that each one works from end to end, and that a mistake is one clear line.
"""

from __future__ import annotations

import functools
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tiny_sweep import TINY

from clray import reference_runs
from clray.cli import COMMANDS, DATA_COMMANDS, RECORDS_COMMANDS, app, run_app
from clray.language import export
from clray.metrics import Measurement
from clray.record import Record
from clray.store import Store
from clray.trial import Trial

TUNED = {
    "version": 1,
    "track": "vision",
    "benchmark": {
        "name": "class-incremental", "dataset": "mnist", "source": "embedded", "classes": [5, 6, 7, 8], "tasks": 2,
        "class_order": "trial", "train_per_class": 20, "test_per_class": 10,
    },
    "model": {"name": "mlp", "hidden": [10]},
    "seeds": [0],
    "metrics": ["ACC"],
    "grid": {"lr": [0.01, 0.1]},
    "variants": {"er": {"method": "ocl_er", "memories": 20}},
    "tuning": {"benchmark": {"classes": [0, 1, 2, 3]}, "seeds": [7]},
}  # fmt: skip
SEARCHED = """
version: 1
track: vision
benchmark: {name: rotated-mnist, tasks: 2, train_per_task: 60, test_per_task: 50, source: embedded}
model: {name: mlp, hidden: [20]}
seeds: [0]
metrics: [ACC]
grid: {lr: {log_uniform: [0.001, 1]}}
search: {samples: 2, seed: 1, benchmark: {validation: true}, seeds: [100]}
variants:
  naive: {method: naive}
"""
SMALL = "--quick --set benchmark.source=embedded --set benchmark.tasks=2 --set benchmark.train_per_task=30"
NO_ID = "0" * 16


@dataclass(frozen=True)
class Uses:
    """A right and a wrong use of a command, as they are typed after its name; ``{…}`` are trials of the folder.

    Attributes:
        said: a part of what the right use prints to standard output.
        message: a part of the one line that the wrong use prints to standard error, after ``error: ``.
        code: the wrong use's exit code.
        usage: the command takes nothing that could be wrong: its wrong use is an option that there is not.
        needs: the right use needs the published MNIST files; without them it is skipped.
    """

    right: str
    said: str
    wrong: str
    message: str
    code: int = 2
    usage: bool = False
    needs: bool = False


LOCAL = "--local --wandb off"
NO_VARIANT = "--only nothing: no such variant; allowed: "
NO_STORE = "--results '': names no store"
USES: dict[str, Uses] = {
    "plan": Uses("tiny.yaml --quick", "left to run: 0 trials", "tiny.yaml --only nothing", NO_VARIANT),
    "costs": Uses("", "| table | trials | core hours |", "--results ''", NO_STORE),
    "sweep": Uses(f"tiny.yaml --quick {LOCAL}", "Report: ", f"tiny.yaml {LOCAL} --only nothing", NO_VARIANT),
    "reproduce": Uses(
        f"mer_rotations --only online --seeds 0 {SMALL} {LOCAL} --results again", "1 of 1 finished",
        "mer_rotation", "mer_rotation: no such reproduction, sweep or file; did you mean 'mer_rotations'",
    ),
    "run": Uses(
        "tiny.yaml --variant online --quick", "finished before",
        "tiny.yaml --variant online --device gpu", "--device gpu: not a device of this machine; allowed: cpu",
    ),
    "tune": Uses("tuned.yaml --local --results tuned", "are frozen: ", "tiny.yaml --local", "tuning"),
    "search": Uses("searched.yaml --local --results searched", "ACC", "tiny.yaml --local", "search"),
    "slurm": Uses("mer_rotations", "#SBATCH --array", "mer_rotations --time soon", "--time soon: "),
    "kubernetes": Uses(
        "mer_rotations --image lab/clray:1 --results s3://bucket/clray", "kind: RayJob",
        "mer_rotations --image lab/clray:1", "--results: no store is named; allowed: ",
    ),
    "table": Uses(
        "tiny.yaml --quick", "2 of 2 finished",
        "tiny.yaml --records both", "--records both: no reference runs of tiny ship with clray; allowed: own",
    ),
    "report": Uses(
        "tiny.yaml --quick -o page.html", "page.html",
        "tiny.yaml --quick -o nowhere/page.html", "nowhere/page.html: cannot be written: ", 1,
    ),
    "compare": Uses("mer_rotations GEM MER", "P(better)", "mer_rotations --metric RAA", "--metric RAA: no such metric"),
    "leaderboard": Uses(
        "mer_rotations", "Riemer et al., ICLR 2019",
        "mer_rotations --metric RA,LA", "--metric RA,LA: a leaderboard is ranked by one metric",
    ),
    "verify": Uses(
        "online_class_orders --trials 1 --seed 0 --only naive", "same bits",
        "lamol_orders", "lamol_orders: no reference runs of this ship with clray; allowed: ", needs=True,
    ),
    "list": Uses("", "mer_rotations", "--results ''", NO_STORE),
    "show": Uses("{finished}", '"status": "finished"', NO_ID, f"{NO_ID}: no record, checkpoint or failure of", 1),
    "export": Uses(
        "{finished} looks.json copy.json", "copy.json",
        "{finished} look.json", "it has no file 'look.json'; did you mean 'looks.json'?", 1,
    ),
    "samples": Uses("{language}", "1 pseudo-samples, 1 kept", NO_ID, f"{NO_ID}: no record of such a trial is in ", 1),
    "status": Uses("", "3 finished trials, 0 begun", "--results ''", NO_STORE),
    "compare-stores": Uses("results results", "same bits", "results nowhere", "B nowhere: no such folder"),
    "gc": Uses("", "0 files", "--only leftovers", "--only 'leftovers': not a kind of file; allowed: checkpoints, "),
    "publish": Uses(
        "tiny.yaml --quick --wandb off", "nothing is published: --wandb off",
        "tiny.yam --wandb off", "tiny.yam: no such reproduction, sweep or file; ",
    ),
    "doctor": Uses("", "ok     cores", "--results ''", NO_STORE),
    "init": Uses("mine --like er", "mine: a copy of er", "results", "results: it exists already; name a new folder"),
    "data list": Uses("", "Track vision:", "--all", "No such option: --all", usage=True),
    "data fetch": Uses("mnist", "mnist", "mnis", "mnis: no such data set; did you mean 'mnist'?"),
    "data verify": Uses(
        "episodes/scan", "scan: made by its grammar, fingerprint ",
        "mnis", "mnis: no such data set; did you mean 'mnist'?",
    ),
    "records list": Uses("", "mer_rotations: 70 trials", "--all", "No such option: --all", usage=True),
    "records add": Uses(
        "mer_memory --results shipped", "mer_memory: 2 of ",
        "mer_memor --results shipped", "mer_memor: no such reproduction; did you mean 'mer_memory'",
    ),
    "records pages": Uses(
        "pages", "mer_memory.md", "tiny.yaml/pages", "tiny.yaml/pages: the pages cannot be written: ",
    ),
}  # fmt: skip
"""By the command's name, that of a group before it. A new command needs a line here."""

Typed = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kernels: None) -> dict[str, str]:
    """A working folder with sweep files and a store, and the ids of trials in it."""
    place = tmp_path_factory.mktemp("work")
    (place / "tiny.yaml").write_text(TINY)
    (place / "tuned.yaml").write_text(yaml.safe_dump(TUNED))
    (place / "searched.yaml").write_text(SEARCHED)
    import clray

    made = clray.run(place / "tiny.yaml", quick=True, results=place / "results")
    store = Store(place / "results")
    first = made.records[0].id
    store.write_artifact(first, "looks.json", b"{}")
    sample = export.PseudoSample("srl", "sst", [50260, 64], "__gen__ a film __ans__ good", "a film", "good", "")
    language = _language_trial(store, export.samples_json([sample]))
    for record in reference_runs.read("mer_memory")[:2]:
        Store(place / "shipped").write(record)
    return {"folder": str(place), "finished": first, "language": language}


def _language_trial(store: Store, samples: bytes) -> str:
    trial = Trial(
        version=1, track="language", benchmark={}, model={}, method="lamol", hyperparameters={}, evaluate="after_task",
        randomness="clray", engine="auto", precision="float32", seed=0, task_order=None,
    )  # fmt: skip
    data = {"name": "sst", "source": "CLRAY_DATA", "fingerprint": "0"}
    store.write(Record(trial.id("0"), trial, data, [Measurement(1, 1, 0, "accuracy", 0.5)]))
    store.write_artifact(trial.id("0"), export.SAMPLES, samples)
    return trial.id("0")


@pytest.fixture
def typed(folder, monkeypatch, capsys) -> Typed:
    """Types a command in the folder: its exit code, standard output and standard error."""
    monkeypatch.chdir(folder["folder"])
    monkeypatch.setenv("COLUMNS", "200")

    def type_it(line: str) -> tuple[int, str, str]:
        import shlex

        monkeypatch.setattr(sys, "argv", ["clray", *shlex.split(line.format(**folder))])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_app(app)
        code = ended.value.code
        return code if isinstance(code, int) else int(bool(code)), *capsys.readouterr()

    return type_it


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[None]:
    """The published MNIST stands for four small files that a server on this machine has."""
    import gzip
    import hashlib
    import struct

    from clray.vision import data
    from clray.vision.datasets.idx import idx_set

    sums = {}
    for part, count in (("train", 6), ("t10k", 4)):
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28) + bytes(count * 784)
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(range(count))
        for name, content in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
            packed = gzip.compress(content, mtime=0)
            (tmp_path / name).write_bytes(packed)
            sums[name] = hashlib.md5(packed, usedforsecurity=False).hexdigest()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setitem(data.PUBLISHED, "mnist", idx_set("http://origin/", sums, (address,)))
    monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
    yield
    server.shutdown()
    server.server_close()


def every_command() -> list[str]:
    groups = {"": COMMANDS, "data ": DATA_COMMANDS, "records ": RECORDS_COMMANDS}
    return [f"{group}{name}" for group, commands in groups.items() for name in commands]


def test_every_command_has_its_uses_here():
    assert list(USES) == every_command()


def test_no_group_of_commands_is_left_out():
    import typer.main

    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(known) == {*COMMANDS, "data", "records"}


@pytest.mark.parametrize("command", USES)
def test_the_right_use(command, typed, request, monkeypatch, tmp_path):
    uses = USES[command]
    if uses.needs:
        request.getfixturevalue("mnist")
    if command == "data fetch":
        request.getfixturevalue("mirror")
    if command == "records add":  # into a folder of this test, not into the checkout
        monkeypatch.setattr(reference_runs, "path_of", lambda name: tmp_path / f"{name}.parquet")
    if command == "records pages":  # one page in place of all, which takes ten seconds
        monkeypatch.setattr(reference_runs, "names", lambda: ["mer_memory"])
    code, out, err = typed(f"{command} {uses.right}")
    assert code == 0, out + err
    assert uses.said in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize("command", USES)
def test_a_wrong_use(command, typed, folder):
    uses = USES[command]
    before = sorted(Path(folder["folder"]).rglob("*"))
    code, out, err = typed(f"{command} {uses.wrong}")
    assert code == uses.code, out + err
    assert out == ""
    assert uses.message in err
    assert "Traceback" not in err
    if not uses.usage:
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
    assert sorted(Path(folder["folder"]).rglob("*")) == before, "a wrong use leaves nothing behind"
