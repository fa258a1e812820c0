"""The extras: what works without them, and the one line where something does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from bare import ROOT, declared, others, sitecustomize
from typer.testing import CliRunner
from waiting import GUARD

from clray import extras, reference_runs
from clray.cli import app, run_app
from clray.commands.checks import checks
from clray.extras import EXTRAS, ExtraMissing
from clray.tracks import TRACKS

PLAIN = re.compile(r"[-_.]+")


class Bare:
    """Runs clray in a folder of its own, in a Python that has the base installation and nothing else."""

    def __init__(self, folder: Path) -> None:
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(sitecustomize(others()))
        own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
        self.environment = {**own, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "COLUMNS": "200"}
        self.folder = folder

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env={**self.environment, **environment},
            capture_output=True, text=True, timeout=GUARD,
        )  # fmt: skip

    def clray(self, *arguments: str, **environment: str) -> str:
        done = self.run("-m", "clray", *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """The one line on stderr with which a command ends."""
        done = self.run("-m", "clray", *arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


def top_level(distribution: str) -> set[str]:
    """The modules of a distribution."""
    plain = PLAIN.sub("-", distribution).lower()
    found = metadata.packages_distributions().items()
    return {name for name, of in found if plain in {PLAIN.sub("-", each).lower() for each in of}}


class TestDeclarations:
    @pytest.mark.parametrize("name", EXTRAS)
    def test_an_extra_has_the_packages_that_pyproject_names(self, name):
        wanted = [requirement.name for requirement in declared(name)]
        assert len(EXTRAS[name].packages) == len(wanted)
        for distribution in wanted:
            try:
                metadata.distribution(distribution)
            except metadata.PackageNotFoundError:
                continue  # gguf is in no test's environment
            assert top_level(distribution) & set(EXTRAS[name].packages), distribution

    def test_all_has_every_extra_of_a_user(self):
        (all_,) = declared("all")
        assert all_.name == "clray"
        assert set(EXTRAS) <= set(all_.extras)
        assert not {"all", "cluster", "dev"} & set(all_.extras)

    def test_the_tests_have_the_extras_that_they_test(self):
        assert any(
            each.name == "clray" and {"ray", "wandb", "language", "cloud"} <= each.extras for each in declared("dev")
        )

    def test_a_cluster_has_ray(self):
        assert any(each.name == "clray" and each.extras == {"ray"} for each in declared("cluster"))

    def test_the_base_installation_has_none_of_them(self):
        hidden = others()
        assert {"ray", "wandb", "wandb_workspaces", "transformers", "tokenizers", "sacrebleu", "obstore"} <= hidden
        assert not {"numpy", "torch", "numba", "yaml", "pydantic", "typer", "matplotlib"} & hidden


class TestWithout:
    def test_the_commands_are_there(self, bare):
        assert bare.run("-c", "import clray.cli, sys; assert 'ray' not in sys.modules").returncode == 0
        assert "sweep" in bare.clray("--help")
        assert "mer_rotations" in bare.clray("list")
        assert "12 trials" in bare.clray("plan", "lamol_small", "--quick")

    @pytest.mark.slow
    def test_every_sweep_is_planned(self, bare):
        for track in TRACKS:
            code = f"""
from clray.documents import Document
from clray.loading import find_sweep, load_sweep, sweep_names
for sweep in sweep_names():
    if Document(find_sweep(sweep)).data["track"] == {track!r}:
        assert load_sweep(sweep).cells
"""
            done = bare.run("-c", code)
            assert done.returncode == 0, done.stderr

    @pytest.mark.slow
    def test_trials_run_and_are_shown(self, bare, tiny, kernels):
        ran = bare.clray("sweep", str(tiny), "--local", "--only", "online,gem", "--seeds", "0,1")
        assert "4 of 4 finished" in ran
        assert "gem" in bare.clray("compare", str(tiny), "online", "gem")
        assert "own runs" in bare.clray("leaderboard", str(tiny))
        assert ".html" in bare.clray("report", str(tiny), "--only", "online,gem")
        assert "finished" in bare.clray("status")

    @pytest.mark.slow
    def test_shipped_tables_are_shown(self, bare):
        """All in one process: each start of Python costs seconds."""
        names = reference_runs.names()
        code = "from clray.cli import app; from typer.testing import CliRunner\n"
        code += f"for name in {names!r}: print(CliRunner().invoke(app, ['table', name]).output, end='=' * 9)"
        shown = bare.run("-c", code)
        assert shown.returncode == 0, shown.stderr
        tables = shown.stdout.split("=" * 9)[:-1]
        assert len(tables) == len(names)
        for name, table in zip(names, tables, strict=True):
            assert re.search("runs? that ships? with clray", table), name

    @pytest.mark.slow
    def test_reference_runs_are_verified(self, bare, mnist):
        assert "same bits" in bare.clray("verify", "mer_rotations", "--only", "online", "--trials", "1")

    @pytest.mark.slow
    def test_episodes_run(self, bare):
        short = ["--only", "meta-seq2seq", "--set", "variants.meta-seq2seq.episodes=40", "--seeds", "0", "--local"]
        assert "1 of 1 finished" in bare.clray("sweep", "metaseq2seq/mutual_exclusivity", *short)

    @pytest.mark.slow
    def test_a_key_of_wandb_does_not_stop_a_launch(self, bare, tiny):
        ran = bare.clray("sweep", str(tiny), "--local", "--only", "online", WANDB_API_KEY="0" * 40)
        (line,) = [line for line in ran.splitlines() if line.startswith("W&B")]
        assert line.startswith("W&B: nothing is published: ")
        assert line.endswith("pip install 'clray[wandb]'")
        assert "2 of 2 finished" in ran

    def test_doctor_names_them(self, bare):
        shown = bare.clray("doctor")
        (line,) = [line for line in shown.splitlines() if "extras:" in line]
        assert line.startswith(
            "note   extras: pandas; not here: ray (several trials at once, GPUs and clusters), wandb ("
        )
        assert line.endswith("pip install 'clray[ray,wandb,language,cloud,search,gguf]'")
        assert "Ray: not here: launches run with --local" in shown
        assert "W&B: off: the extra wandb is not here" in shown


class TestFromPython:
    @pytest.mark.slow
    def test_trials_run_in_this_process(self, bare, tiny, kernels):
        code = f"import clray; print(len(clray.run({str(tiny)!r}, variant='online').to_pandas()))"
        assert bare.run("-c", code).stdout == "2\n"

    def test_ray_and_texts_are_refused(self, bare, tiny):
        for name, ray, extra in ((str(tiny), True, "ray"), ("lamol/two_tasks_small", False, "language")):
            done = bare.run("-c", f"import clray; clray.run({name!r}, quick={not ray}, seed=1, ray={ray})")
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1].startswith("clray.extras.ExtraMissing: ")
            assert f"pip install 'clray[{extra}]'" in done.stderr


class TestRefused:
    def test_a_sweep_without_ray(self, bare, tiny):
        line = bare.refused("sweep", str(tiny), "--only", "online")
        assert "needs ray, which is not installed here: pip install 'clray[ray]' or use --local" in line
        assert not (bare.folder / "results").exists()
        bare.clray("sweep", str(tiny), "--only", "online", "--dry-run")  # a plan needs no Ray

    @pytest.mark.slow
    def test_a_finished_sweep_needs_no_ray(self, bare, tiny):
        bare.clray("sweep", str(tiny), "--only", "online", "--local")
        assert "2 of 2 finished" in bare.clray("sweep", str(tiny), "--only", "online")

    def test_publishing_without_wandb(self, bare, tiny):
        missing = "wandb, wandb_workspaces, which are not installed here: pip install 'clray[wandb]'"
        assert f"clray publish needs {missing}" in bare.refused("publish", str(tiny))
        assert f"--wandb offline needs {missing}" in bare.refused("sweep", str(tiny), "--local", "--wandb", "offline")
        assert not (bare.folder / "results" / "records").exists()
        bare.clray("publish", str(tiny), "--wandb", "off")

    def test_trials_on_texts(self, bare):
        line = bare.refused("reproduce", "lamol_small", "--quick", "--local")
        assert "the track language needs transformers, tokenizers, rouge_score, sacrebleu" in line
        assert line.endswith("pip install 'clray[language]'")
        run = ["run", "lamol/two_tasks_small", "--variant", "finetune", "--seed", "1", "--quick"]
        assert bare.refused(*run).endswith("pip install 'clray[language]'")

    @pytest.mark.parametrize("store", ["s3://bucket/clray", "gs://bucket/clray", "az://bucket/clray"])
    def test_a_store_in_a_cloud(self, bare, store):
        line = bare.refused("status", "--results", store)
        assert "needs obstore, which is not installed here: pip install 'clray[cloud]'" in line

    def test_batch_files_with_ray(self, bare, tiny):
        arguments = ["slurm", str(tiny), "--ray", "--cpus-per-task", "2"]
        assert "--ray needs ray, which is not installed here" in bare.refused(*arguments)
        assert "--gres gpu:1 needs ray" in bare.refused("slurm", str(tiny), "--gres", "gpu:1")
        assert "#SBATCH" in bare.clray("slurm", str(tiny), "--array", "2")

    def test_a_package_that_no_command_asked_for(self, monkeypatch, capsys):
        """The line also comes where a module is imported in a place that nobody thought of; a bug stays a traceback."""

        def failing(module):
            def application():
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)

            return application

        with pytest.raises(SystemExit) as end:
            run_app(failing("tokenizers.models"))
        assert end.value.code == 1
        assert capsys.readouterr().err == (
            "error: this needs tokenizers, which is not installed here: pip install 'clray[language]'\n"
        )
        with pytest.raises(ModuleNotFoundError):
            run_app(failing("clray.nothing"))


def test_what_is_here_is_not_asked_for(monkeypatch):
    assert not extras.lacking("ray")
    extras.require("ray", "this")
    monkeypatch.setitem(sys.modules, "ray", None)  # what Python itself takes for "cannot be imported"
    assert extras.lacking("ray") == ["ray"]
    with pytest.raises(ExtraMissing, match=r"this needs ray, which is not installed here: pip install 'clray\[ray\]'$"):
        extras.require("ray", "this")


def test_doctor_says_that_they_are_here(monkeypatch):
    monkeypatch.setattr("clray.commands.checks.lacking", lambda name: [])
    (finding,) = [finding for finding in checks("results") if finding.subject == "extras"]
    assert str(finding) == "ok     extras: ray, wandb, language, cloud, search, pandas, gguf"


def test_a_launch_on_ray_says_it_before_it_starts(monkeypatch, tiny, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExtraMissing, match="--local"):
        CliRunner().invoke(app, ["sweep", str(tiny), "--only", "online"], catch_exceptions=False)
