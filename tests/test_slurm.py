"""The batch files for Slurm: their form, and how they run, with processes in place of nodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from waiting import GUARD, wait_for

from clray.cli import app
from clray.errors import DeclarationError
from clray.record import Record
from clray.slurm import Job, array_job, options_of, ray_job, seconds_of
from clray.store import Store

ROOT = Path(__file__).resolve().parents[1]


def sbatch_lines(text: str) -> dict[str, str]:
    """The options of sbatch in a batch file, which must stand before its first command."""
    before = text[: text.index("\nset -u")]
    assert "#SBATCH" not in text[len(before) :]
    pairs = (line.removeprefix("#SBATCH --").partition("=") for line in before.splitlines() if line[:7] == "#SBATCH")
    return {key: value for key, _, value in pairs}


def checked_by_bash(text: str, folder: Path) -> None:
    file = folder / "checked.sh"
    file.write_text(text)
    assert subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True).stderr == ""
    if shellcheck := shutil.which("shellcheck"):
        done = subprocess.run([shellcheck, "--severity=warning", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def made(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["slurm", *arguments])
    assert done.exit_code == 0, done.exception
    return done.stdout


class TestTimes:
    @pytest.mark.parametrize(
        ("time", "seconds"),
        [("90", 5400), ("30:00", 1800), ("04:00:00", 14400), ("1-0", 86400), ("1-12", 129600), ("2-00:30", 174600),
         ("1-02:03:04", 93784)],
    )  # fmt: skip
    def test_as_sbatch_takes_them(self, time: str, seconds: int) -> None:
        assert seconds_of(time) == seconds
        with_time = Job("n", "/f", "/p", ["sweep"], "clray", seconds_of(time))
        assert seconds_of(sbatch_lines(array_job(with_time, 1, False))["time"]) == seconds

    @pytest.mark.parametrize("time", ["", "4h", "1:2:3:4", "-5", "1-", "04:00:00 ", "٤", "unlimited"])
    def test_no_time(self, time: str) -> None:
        with pytest.raises(DeclarationError, match="expected a time as sbatch takes it: MINUTES, MINUTES:SECONDS"):
            seconds_of(time)

    @pytest.mark.parametrize("time", ["0", "1", "1:59"])
    def test_too_short(self, time: str) -> None:
        with pytest.raises(DeclarationError, match="allowed: at least 2 minutes"):
            seconds_of(time)

    @pytest.mark.parametrize("seconds", [120, 600, 3600, 14400, 864000])
    def test_the_launch_ends_before_the_signal_and_the_signal_comes_before_the_end(self, seconds: int) -> None:
        text = array_job(Job("n", "/f", "/p", ["sweep"], "clray", seconds), 1, False)
        launched = float(re.findall(r"--max-hours ([0-9.]+)", text)[0]) * 3600
        warned = int(sbatch_lines(text)["signal"].removeprefix("B:USR1@"))
        assert 0 < launched < seconds - warned <= seconds - 40
        assert seconds - launched >= 60


class TestForm:
    ODD = "/a folder/with 'quotes' $HOME \"and\" more"

    def job(self, **changes: Any) -> Job:
        options = {"comment": 'a "b" \\c', "exclusive": None, "account": "lab"}
        made_by = "clray slurm 'x'"
        return Job("name", self.ODD, f"{self.ODD}/python", ["sweep", f"{self.ODD}/s.yaml"], made_by, 14400,
                   options=options, **changes)  # fmt: skip

    @pytest.mark.parametrize("text", ["array", "gpus", "ray", "one"])
    def test_it_is_valid_shell(self, tmp_path: Path, text: str) -> None:
        job = self.job(environment={"PYTHONPATH": self.ODD})
        texts = {"array": array_job(job, 5, False), "gpus": array_job(job, 5, True), "ray": ray_job(job, 3)}
        texts["one"] = ray_job(self.job(requeues=0), 1)
        checked_by_bash(texts[text], tmp_path)

    def test_the_options(self) -> None:
        lines = sbatch_lines(array_job(self.job(cpus=3), 5, False))
        assert lines["array"] == "0-4"
        assert lines["cpus-per-task"] == "3"
        assert lines["time"] == "04:00:00"
        assert lines["exclusive"] == ""
        assert lines["account"] == "lab"
        assert lines["comment"] == '"a \\"b\\" \\\\c"'
        assert "requeue" in lines
        lines = sbatch_lines(ray_job(self.job(cpus=8), 4))
        assert (lines["nodes"], lines["ntasks-per-node"], lines["cpus-per-task"]) == ("4", "1", "8")
        assert "array" not in lines

    def test_a_user_s_options_replace_ours(self) -> None:
        job = Job("n", "/f", "/p", ["sweep"], "clray", options={"output": "logs/%A.log"})
        assert array_job(job, 1, False).count("#SBATCH --output") == 1
        assert sbatch_lines(array_job(job, 1, False))["output"] == "logs/%A.log"

    @pytest.mark.parametrize("item", ["Account=lab", "--account=lab", "=x", "a b=c", "account=", "comment=a\nb"])
    def test_no_option(self, item: str) -> None:
        with pytest.raises(DeclarationError, match=r"^--sbatch "):
            options_of([item])

    @pytest.mark.parametrize("item", ["array=0-5", "time=1", "signal=TERM", "nodes=3", "no-requeue"])
    def test_what_the_file_depends_on_is_set_by_flags(self, item: str) -> None:
        with pytest.raises(DeclarationError, match="the batch file depends on it; allowed: the flags of clray slurm"):
            options_of([item])


class TestCommand:
    def test_an_array(self, tiny: Path, tmp_path: Path) -> None:
        text = made(str(tiny), "--array", "3", "--time", "04:00:00", "--partition", "cpu", "--only", "er,online",
                    "--set", "resources.hours=2", "--results", str(tmp_path / "my results"))  # fmt: skip
        checked_by_bash(text, tmp_path)
        assert sbatch_lines(text)["partition"] == "cpu"
        [launch] = [line for line in text.splitlines() if line.startswith("launch ")]
        assert launch == (
            f"launch {sys.executable} -m clray sweep {tiny} --only er --only online --set resources.hours=2 --results "
            f"'{tmp_path}/my results' --max-hours 3.9000 --local --wandb off"
        )

    def test_with_gpus_its_jobs_embed_a_ray(self, tiny: Path) -> None:
        text = made(str(tiny), "--gres", "gpu:1")
        assert '--cpus "$SLURM_CPUS_PER_TASK"' in text
        assert "--local" not in text
        assert sbatch_lines(text)["gres"] == "gpu:1"

    def test_a_dash_prints_it(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        printed = [CliRunner().invoke(app, ["slurm", str(tiny), *more]).stdout for more in ([], ["-o", "-"])]
        assert printed[1].startswith("#!/bin/bash")
        assert printed[1].splitlines()[3:] == printed[0].splitlines()[3:]
        assert not (tmp_path / "-").exists()

    def test_no_more_jobs_than_trials(self, tiny: Path) -> None:
        done = CliRunner().invoke(app, ["slurm", str(tiny), "--only", "er", "--array", "50"])
        assert done.exit_code == 0
        assert sbatch_lines(done.stdout)["array"] == "0-1"
        assert "there are only 2 trials" in done.stderr
        assert sbatch_lines(made(str(tiny)))["array"] == "0-9", "ten, where none are named"

    def test_a_ray_cluster(self, tiny: Path, tmp_path: Path) -> None:
        text = made(str(tiny), "--ray", "--nodes", "4", "--cpus-per-task", "32", "--time", "1-0", "--quick")
        checked_by_bash(text, tmp_path)
        assert '--address "$head"' in text
        assert "--quick" in text
        assert "--local" not in text

    def test_a_reproduction_is_named(self) -> None:
        text = made("mer_rotations", "--quick", "--rerun-stale", "--results", "s3://bucket/clray")
        assert "-m clray reproduce mer_rotations --quick --results s3://bucket/clray --rerun-stale" in text

    def test_without_waiting(self, tiny: Path) -> None:
        assert " --no-wait " in made(str(tiny), "--no-wait")
        assert "--no-wait" not in made(str(tiny)).partition("set -u")[2]

    def test_it_holds_no_key(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, "very-secret")
        for kind in ([], ["--ray", "--cpus-per-task", "2"]):
            assert "very-secret" not in made(str(tiny), *kind)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--array", "2", "--ray"], "--array with --ray: allowed: one of them"),
            (["--nodes", "2"], "--nodes 2: only a Ray cluster has several nodes"),
            (["--ray"], "--ray needs --cpus-per-task N"),
            (["--time", "soon"], "--time soon: expected a time as sbatch takes it"),
            (["--sbatch", "oops!"], "expected KEY=VALUE"),
            (["--partition", " "], "--partition ' ': expected one line of text"),
            (["--cpus-per-task", "1", "--set", "resources.cpu=4"], "a trial asks for 4 CPUs ('resources')"),
            (["--results", "s3://key:secret@bucket/x"], "the address holds a key"),
            (["--only", "nobody"], "nobody"),
        ],
    )
    def test_one_error(self, tiny: Path, arguments: list[str], said: str) -> None:
        done = CliRunner().invoke(app, ["slurm", str(tiny), *arguments])
        assert done.exception.exit_code == 2  # type: ignore[union-attr]
        assert said in str(done.exception)
        assert "secret" not in str(done.exception)
        assert done.stdout == ""

    def test_it_is_written_whole_or_not_at_all(self, tiny: Path, tmp_path: Path) -> None:
        file = tmp_path / "job.sh"
        assert made(str(tiny), "-o", str(file)) == f"{file}: submit it: sbatch {file}\n"
        assert file.read_text().startswith("#!/bin/bash\n")
        done = CliRunner().invoke(app, ["slurm", str(tiny), "-o", str(tmp_path / "no" / "job.sh")])
        assert done.exception.exit_code == 2  # type: ignore[union-attr]
        assert CliRunner().invoke(app, ["slurm", str(tiny), "--array", "0"]).exit_code == 2


# What a launch does in the tests of the shell around it: it says that it runs, and ends with a code of its own.
LAUNCH = """\
#!/bin/bash
trap 'echo told; exit 130' TERM
echo ready >> ready
[ "$CODE" = wait ] || exit "$CODE"
for _ in $(seq 600); do sleep 0.1; done
"""


def _as_slurm_starts_it() -> None:
    """Tests that run in the background of a shell ignore SIGINT, and bash cannot catch what it was told to ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TestShell:
    """The batch file around the launch, with a command in place of clray that ends as it is told."""

    def ended(
        self, folder: Path, code: str, number: int | None = None, restarts: str = "", **changes: Any
    ) -> tuple[int, list[str], str]:
        """The exit code of a job, the arguments of its scontrol, and its output."""
        (folder / "bin").mkdir()
        for name, text in (("python", LAUNCH), ("bin/scontrol", '#!/bin/bash\necho "$@" >> requeued\n')):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        job = Job("name", str(folder), str(folder / "python"), ["sweep"], "clray", **changes)
        (folder / "job.sh").write_text(array_job(job, 4, False))
        slurm = {"SLURM_JOB_ID": "80", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3", "CODE": code}
        slurm |= {"SLURM_RESTART_COUNT": restarts} if restarts else {}
        environment = {**os.environ, **slurm, "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        process = subprocess.Popen(["bash", str(folder / "job.sh")], env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   preexec_fn=_as_slurm_starts_it)  # fmt: skip
        if number is not None:
            wait_for((folder / "ready").exists)
            process.send_signal(number)
        output, _ = process.communicate(timeout=GUARD)
        requeued = folder / "requeued"
        return process.returncode, requeued.read_text().splitlines() if requeued.exists() else [], output

    @pytest.mark.parametrize("code", ["0", "1", "2"])
    def test_a_job_that_ended_by_itself_does_not_come_back(self, tmp_path: Path, code: str) -> None:
        assert self.ended(tmp_path, code) == (int(code), [], "")

    def test_after_the_time_of_the_launch_it_goes_back_into_the_queue(self, tmp_path: Path) -> None:
        code, requeued, output = self.ended(tmp_path, "130")
        assert (code, requeued) == (130, ["requeue 77_3"]), "this element, not the whole array"
        assert "it goes back into the queue" in output

    def test_slurm_s_signal_reaches_the_launch_and_it_goes_back(self, tmp_path: Path) -> None:
        code, requeued, output = self.ended(tmp_path, "wait", signal.SIGUSR1)
        assert (code, requeued) == (130, ["requeue 77_3"])
        assert "told" in output

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_job_that_was_cancelled_stays_away(self, tmp_path: Path, number: int) -> None:
        code, requeued, output = self.ended(tmp_path, "wait", number)
        assert (code, requeued) == (130, [])
        assert "told" in output

    def test_not_for_ever(self, tmp_path: Path) -> None:
        code, requeued, output = self.ended(tmp_path, "130", restarts="20")
        assert (code, requeued) == (130, [])
        assert "after 20 returns to the queue: submit this file again" in output

    def test_not_where_it_must_not(self, tmp_path: Path) -> None:
        assert self.ended(tmp_path, "130", requeues=0)[:2] == (130, [])


SWEEP = """\
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: PER_TASK, seed: 0, source: embedded}
evaluate: 20
seeds: [0, 1]
variants:
  mer: {method: mer, lr: 0.03, memories: 100, replay_batch: 20, beta: 0.1, batches_per_example: 20}
  online: {method: online, lr: 0.01}
"""


@pytest.mark.usefixtures("kernels")
class TestArray:
    """Elements of an array as processes, on one store."""

    def prepare(self, folder: Path, monkeypatch: pytest.MonkeyPatch, per_task: int, *arguments: str) -> Path:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        sweep, file = folder / "my sweep.yaml", folder / "array.sh"
        sweep.write_text(SWEEP.replace("PER_TASK", str(per_task)))
        made(str(sweep), "--results", str(folder / "the results"), "-o", str(file), *arguments)
        return file

    def start(self, file: Path, element: int) -> subprocess.Popen[str]:
        slurm = {"SLURM_JOB_ID": str(100 + element), "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": str(element),
                 "SLURM_CPUS_PER_TASK": "1"}  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        return subprocess.Popen(["bash", str(file)], env={**kept, **slurm}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    def test_each_trial_runs_once_and_the_table_is_complete(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = self.prepare(tmp_path, monkeypatch, 60, "--array", "3", "--time", "30")
        elements = [self.start(file, element) for element in range(3)]
        outputs = [element.communicate(timeout=GUARD)[0] for element in elements]
        assert [element.returncode for element in elements] == [0, 0, 0], outputs
        records, problems = Store(tmp_path / "the results").records()
        assert not problems
        assert len(records) == 4
        assert [len(record.provenance["executions"]) for record in records] == [1, 1, 1, 1]
        assert all("4 of 4 finished" in output for output in outputs), "each waited for the others"
        assert Store(tmp_path / "the results").leased() == set()

    def test_what_an_element_leaves_at_sigterm_another_one_continues(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = self.prepare(tmp_path, monkeypatch, 1000, "--array", "2", "--only", "mer")
        store, claims = Store(tmp_path / "the results"), tmp_path / "the results" / "claims"
        first = self.start(file, 0)
        wait_for(lambda: list(claims.glob("*.json")))
        [trial] = store.leased()
        pid = json.loads((claims / f"{trial}.json").read_text())["pid"]
        wait_for(lambda: '"from"' in (claims / f"{trial}.json").read_text())  # its training is set up

        def ticks() -> float:
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])

        begun = ticks()
        wait_for(lambda: ticks() > begun + 150)  # 1.5 s of learning
        second = self.start(file, 1)
        wait_for(lambda: len(store.leased()) == 2)
        first.send_signal(signal.SIGTERM)
        output, _ = first.communicate(timeout=GUARD)
        assert first.returncode == 130, output
        assert "Stopping: trials save what they have" in output
        assert "Interrupted: 2 trials are left, 1 of them half-done" in output
        assert second.poll() is None, "it still runs its own trial"
        output, _ = second.communicate(timeout=GUARD)
        assert second.returncode == 0, output
        record = store.read(trial)
        assert isinstance(record, Record)
        left, continued = record.provenance["executions"]
        assert left["pid"] == pid
        assert continued["pid"] != pid
        assert continued["from"] > 0
        assert "2 of 2 finished" in output


# Processes in place of nodes: srun runs its command here, once for each node that its options ask for.
SRUN = """\
#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_a_ray_cluster_on_an_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not subprocess.run(["hostname", "-I"], capture_output=True).stdout.strip():
        pytest.skip("this machine has no address but that of the loopback")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "bin").mkdir()
    srun, sweep, file = tmp_path / "bin" / "srun", tmp_path / "my sweep.yaml", tmp_path / "ray.sh"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    sweep.write_text(SWEEP.replace("PER_TASK", "60"))
    made(str(sweep), "--ray", "--nodes", "2", "--cpus-per-task", "1", "--results", str(tmp_path / "results"),
         "-o", str(file))  # fmt: skip
    id = os.getpid()
    slurm = {"SLURM_JOB_ID": str(id), "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM", "CLRAY_HEAD"))}
    environment = {**kept, **slurm, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "RAY_worker_niceness": "0"}
    process = subprocess.Popen(["bash", str(file)], env=environment, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)  # fmt: skip
    output, _ = process.communicate(timeout=GUARD)
    assert process.returncode == 0, output
    assert output.count("Ray runtime started.") == 2, "a head, and a worker"
    assert "4 of 4 finished" in output
    assert len(Store(tmp_path / "results").finished()) == 4
    assert not Path(f"/tmp/clray-{id}").exists()
    left = [
        folder.name
        for folder in Path("/proc").glob("[0-9]*")
        if f"/tmp/clray-{id}/".encode() in (folder / "cmdline").read_bytes()
    ]
    assert left == [], "nothing of the cluster is left"
