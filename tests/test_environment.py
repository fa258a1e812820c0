"""The environment of a process: cores, threads, GPUs that are not used, missing or closed folders, and doctor."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from waiting import GUARD

from clray import folders, gpu, machine
from clray.cache import cache_folder
from clray.cli import app
from clray.cluster import temporary
from clray.commands import answers
from clray.commands.run import options_of
from clray.errors import ClusterError, DeclarationError, StoreError
from clray.launch import Options
from clray.loading import load_sweep
from clray.provenance import machine as facts_of_machine
from clray.store import Store

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, **environment: str) -> str:
    """Run code in a separate Python process, and return its output."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestCores:
    def write(self, root: Path, files: dict[str, str]) -> None:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text + "\n")

    @pytest.mark.parametrize(
        ("membership", "files", "quota"),
        [
            ("0::/", {}, None),
            ("0::/", {"cpu.max": "max 100000"}, None),
            ("0::/a/b", {"a/b/cpu.max": "250000 100000"}, 2.5),
            ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
            ("0::/docker/x", {"cpu.max": "50000 100000"}, 0.5),
            ("3:cpu,a:/j", {"cpu,a/j/cpu.cfs_quota_us": "200000", "cpu,a/j/cpu.cfs_period_us": "100000"}, 2.0),
            ("3:cpu:/j", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
            ("3:cpuset:/j\n2:cpu:/k", {"cpu/k/cpu.cfs_quota_us": "100000", "cpu/k/cpu.cfs_period_us": "50000"}, 2.0),
            ("not a line", {"cpu.max": "50000 100000"}, None),
            ("0::/", {"cpu.max": "torn"}, None),
        ],
    )  # fmt: skip
    def test_a_cgroup_s_quota_is_the_smallest_of_all_above(
        self, tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
    ) -> None:
        self.write(tmp_path, {"proc": membership, **{f"cgroup/{name}": text for name, text in files.items()}})
        assert machine.cgroup_quota(tmp_path / "proc", tmp_path / "cgroup") == quota

    def test_without_cgroups_there_is_no_quota(self, tmp_path: Path) -> None:
        assert machine.cgroup_quota(tmp_path / "proc", tmp_path / "cgroup") is None

    @pytest.mark.parametrize(("quota", "given"), [(None, 1), (8.0, 1), (0.2, 1)])
    def test_a_process_on_one_core_is_given_one(self, quota: float | None, given: int) -> None:
        code = f"""
import os
from clray import machine, provenance
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
machine.cgroup_quota = lambda: {quota}
print(machine.cores_given(), provenance.machine()["cores_given"], provenance.machine()["cores"] == os.cpu_count())
"""
        assert python(code).split() == [str(given), str(given), "True"]

    def test_a_quota_counts_in_whole_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
        for quota, given in ((2.5, 2), (0.3, 1), (64.0, 16), (None, 16)):
            monkeypatch.setattr(machine, "cgroup_quota", lambda quota=quota: quota)
            assert machine.cores_given() == given

    def test_a_process_in_a_real_cgroup_with_a_quota_is_given_its_cores(self) -> None:
        root = Path("/sys/fs/cgroup")
        second = (root / "cgroup.controllers").exists()
        folder = (root if second else root / "cpu") / f"clray-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            pytest.skip("no cgroup can be made here")
        try:
            name, quota = ("cpu.max", "100000 100000") if second else ("cpu.cfs_quota_us", "100000")
            try:
                (folder / name).write_text(quota)
            except OSError:
                pytest.skip("no quota can be set here")
            code = f"""
from pathlib import Path
from clray import machine
before = machine.cgroup_quota()
Path({str(folder / "cgroup.procs")!r}).write_text("0")
print(before, machine.cgroup_quota(), machine.cores_given())
"""
            before, quota, cores = python(code).split()
            assert (quota, cores) == ("1.0", "1")
            assert before == "None" or float(before) >= 1
        finally:
            folder.rmdir()

    def test_a_record_has_both_numbers(self) -> None:
        facts = facts_of_machine()
        assert facts["cores"] == os.cpu_count()
        assert facts["cores_given"] == machine.cores_given()

    def test_numpy_is_pinned_although_it_was_loaded_before(self) -> None:
        code = """
import numpy
from threadpoolctl import threadpool_info
def blas(): return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
before = blas()
from clray.machine import set_threads
set_threads(1)
print(before, blas())
"""
        free = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "3")
        assert python(code, **free).strip() in ("[3] [1]", "[2] [1]"), "OpenBLAS takes no more than the machine has"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the options")
def test_freed_memory_is_used_again() -> None:
    code = """
import resource
import numpy as np
from clray.machine import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(100 * 2**20 // 8)  # larger than the blocks that glibc learns to keep
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""
    before, after = map(int, python(code).split())
    assert after < before / 10


class TestOptions:
    def test_they_reach_the_launch(self) -> None:
        assert options_of(None, 0.5, True, False, 3, 0, True) == Options(
            gpu=0.5, rerun_stale=True, cpus=3, gpus=0, require_gpu=True
        )

    @pytest.mark.parametrize("flag", ["--cpus", "--gpus"])
    @pytest.mark.parametrize(("more", "said"), [
        (["--address", "10.0.0.1:6379"], "the cluster at 10.0.0.1:6379 (--address or RAY_ADDRESS) offers"),
        (["--local"], "--local uses no Ray"),
    ])  # fmt: skip
    def test_they_are_about_an_embedded_ray(self, tiny: Path, flag: str, more: list[str], said: str) -> None:
        done = CliRunner().invoke(app, ["sweep", str(tiny), flag, "1", *more])
        assert isinstance(done.exception, DeclarationError)
        assert str(done.exception).startswith(f"{flag} 1: sets the size of")
        assert said in str(done.exception)

    def test_no_cpu_at_all_is_refused(self, tiny: Path) -> None:
        assert CliRunner().invoke(app, ["sweep", str(tiny), "--cpus", "0"]).exit_code == 2


@pytest.mark.usefixtures("kernels")
class TestGpuNotUsed:
    @pytest.fixture
    def wants_gpu(self, tiny: Path) -> list[str]:
        tiny.write_text(tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1]\nresources: {cpu: 1, gpu: 0.25}"))
        return ["sweep", str(tiny), "--local", "--quick", "--only", "online", "--wandb", "off"]

    def run(self, command: list[str], folder: Path, *more: str) -> Any:
        return CliRunner().invoke(app, [*command, "--results", str(folder / "results"), *more])

    def test_local_says_that_a_gpu_is_left_idle(
        self, wants_gpu: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu, "names", lambda: ["Card 16"])
        done = self.run(wants_gpu, tmp_path)
        assert done.exit_code == 0
        assert "A GPU is here and not used (Card 16): without --local it would be." in done.output

    def test_local_refuses_where_a_gpu_is_required(self, wants_gpu: list[str], tmp_path: Path) -> None:
        done = self.run(wants_gpu, tmp_path, "--require-gpu")
        assert isinstance(done.exception, ClusterError)
        assert str(done.exception).startswith("--require-gpu: --local runs every trial on the CPU")
        assert self.run(wants_gpu, tmp_path, "--require-gpu", "--gpu", "0").exit_code == 0, "then no trial asks for one"

    def test_of_trials_that_ask_for_none_nothing_is_said(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu, "names", lambda: ["Card 16"])
        command = ["sweep", str(tiny), "--local", "--quick", "--only", "online", "--wandb", "off"]
        assert "GPU is here" not in self.run(command, tmp_path).output

    def test_a_gpu_that_torch_cannot_use_is_found_by_its_file(self, tmp_path: Path) -> None:
        for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
            (tmp_path / name).touch()
        assert gpu.device_files(tmp_path) == ["nvidia0", "nvidia1"]

    def test_why_it_cannot_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        if torch.cuda.is_available():
            pytest.skip("torch can use a GPU here")
        assert gpu.names() == []
        assert gpu.why_unusable()
        monkeypatch.setattr(torch.version, "cuda", None)
        monkeypatch.setattr(torch.version, "hip", None)
        assert "built without CUDA" in gpu.why_unusable()
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert "CUDA_VISIBLE_DEVICES hides" in gpu.why_unusable()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process without HOME, of a user whom no list of users names; its folder for temporary files."""
    import pwd
    import tempfile

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "USER", "LOGNAME", "CLRAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class TestFolders:
    def test_without_a_home_there_is_one_that_stands_in(self, nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert folders.home_folder() is None
        assert cache_folder() == nobody / f"clray-{os.getuid()}-cache"
        folders.ensure_home()
        monkeypatch.setenv("HOME", os.environ["HOME"])  # so that it is undone
        monkeypatch.setenv("USER", os.environ["USER"])
        stands_in = nobody / f"clray-{os.getuid()}-home"
        assert folders.home_folder() == stands_in
        assert cache_folder() == stands_in / ".cache" / "clray"
        assert stands_in.stat().st_mode & 0o077 == 0

    def test_a_home_that_cannot_be_written_keeps_no_cache(self, nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/proc/self")
        folders.ensure_home()
        assert os.environ["HOME"] == "/proc/self", "it is the user's all the same"
        assert cache_folder() == nobody / f"clray-{os.getuid()}-cache"

    def test_a_cache_that_is_there_is_read_even_if_it_cannot_be_written(
        self, nobody: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(nobody))
        (nobody / ".cache" / "clray").mkdir(parents=True)
        monkeypatch.setattr("clray.cache.can_be_written", lambda _: False)
        assert cache_folder() == nobody / ".cache" / "clray"

    def test_a_folder_that_others_can_write_to_is_not_taken(self, nobody: Path) -> None:
        open_to_all = folders.private_path("cache")
        open_to_all.mkdir()
        open_to_all.chmod(0o777)
        assert folders.private_folder("cache") is None
        open_to_all.rmdir()
        (nobody / "elsewhere").mkdir()
        open_to_all.symlink_to(nobody / "elsewhere")
        assert folders.private_folder("cache") is None
        assert not (cache_folder() / "notes").is_dir()

    def test_names_that_no_file_can_have_are_no_files(self) -> None:
        assert not folders.is_file(Path("x" * 5000))
        assert not folders.is_file(Path("a\0b"))
        with pytest.raises(DeclarationError, match="x…: cannot be read: File name too long"):
            load_sweep("x" * 5000)

    def test_a_closed_folder_is_named(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        (closed / "inside").mkdir(parents=True)
        (closed / "sweep.yaml").touch()

        def look() -> None:
            with pytest.raises(DeclarationError, match=r"closed/sweep\.yaml: cannot be read: Permission denied"):
                load_sweep(closed / "sweep.yaml")
            assert folders.nearest(closed / "inside" / "deeper") == closed
            assert not folders.can_be_written(closed / "inside" / "deeper")

        as_user(look, closed, tmp_path)


def as_user(look: Callable[[], None], closed: Path, base: Path) -> None:
    """Look at a folder that may not be entered; root, who may enter all, does it as another user."""
    closed.chmod(0)
    try:
        if os.getuid():
            look()
            return
        for folder in (base, *base.parents):
            if not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setgid(12345)
                os.setuid(12345)
                look()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        closed.chmod(0o700)


class TestRaysFolder:
    @pytest.fixture
    def short(self) -> Iterator[Path]:
        import shutil
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        yield folder
        shutil.rmtree(folder, ignore_errors=True)

    def used(self, *said: str) -> tuple[Path, list[str]]:
        lines: list[str] = []
        with temporary.ray_folder(lines.append) as folder:
            assert len(f"{folder}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") <= 107
            (folder / "session").mkdir()
        assert not folder.exists(), "nothing of it is left"
        return folder.parent, lines

    def test_it_lies_where_the_user_says(self, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv("TMPDIR", str(short))
        assert self.used() == (short, [])
        monkeypatch.setenv("RAY_TMPDIR", str(short / "r"))
        assert self.used() == (short / "r", []), "it is made, as Ray would"
        monkeypatch.delenv("RAY_TMPDIR")
        monkeypatch.chdir(short)
        monkeypatch.setenv("TMPDIR", "r")
        assert self.used() == (short / "r", [])

    @pytest.mark.parametrize("named", ["RAY_TMPDIR", "TMPDIR"])
    @pytest.mark.parametrize(("place", "reason"), [
        ("x" * 45, "characters; with more than "),
        ("x" * 90, "characters; with more than "),
        ("é", "only ASCII characters"),
        ("file", "File exists"),
        ("file/below", "Not a directory"),
    ])  # fmt: skip
    def test_where_it_cannot_lie_another_place_is_taken(
        self, short: Path, named: str, place: str, reason: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (short / "file").touch()
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv(named, str(short / place))
        parent, [line] = self.used()
        assert parent == Path("/tmp")
        assert f"{short / place}: " in line
        assert reason in line
        assert line.endswith(f"({named})")

    def test_a_full_disk_is_passed_over(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """/dev/full takes nothing: a file of that name in Ray's folder stands for a disk without room."""
        made = temporary.tempfile.mkdtemp

        def full(prefix: str, dir: Path) -> str:
            folder = made(prefix=prefix, dir=dir)
            if Path(dir) == Path("/tmp"):
                Path(folder, "probe").symlink_to("/dev/full")
            return folder

        monkeypatch.setattr(temporary.tempfile, "mkdtemp", full)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv("TMPDIR", "/tmp")
        parent, [line] = self.used()
        assert parent != Path("/tmp")
        assert "/tmp: No space left on device (TMPDIR)" in line

    def test_where_none_does_the_error_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv("TMPDIR", "/proc/clray")
        monkeypatch.setattr(temporary, "PLACES", ())
        with pytest.raises(ClusterError, match=r"/proc/clray: .*let RAY_TMPDIR name one .*--local"):
            self.used()

    def test_what_a_killed_driver_left_is_removed_and_what_lives_is_not(
        self, short: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_TMPDIR", str(short))
        code = """
import os
from clray.cluster.temporary import ray_folder
with ray_folder(print) as folder:
    print(folder, flush=True)
    os._exit(0)
"""
        left = Path(python(code).strip())
        foreign = short / "ray-foreign"
        foreign.mkdir()
        assert left.is_dir()
        with temporary.ray_folder(print) as living:
            assert not left.exists()
            with temporary.ray_folder(print) as second:
                assert living.is_dir()
                assert second != living
        assert foreign.is_dir(), "without clray's lock it is nobody we know"

    def test_whatever_ray_raises_is_one_line(self) -> None:
        from clray.cluster.session import _started

        with pytest.raises(ClusterError, match=r"^it did not start: "):
            _started("it did not start", address="local", num_cpus="many")


class TestStores:
    @pytest.mark.parametrize("uri", ["gs://", "s3://", "s3:///folder"])
    def test_without_a_bucket_there_is_no_store(self, uri: str) -> None:
        with pytest.raises(StoreError, match=r"names no bucket: expected (gs|s3)://BUCKET/FOLDER"):
            answers.opened(uri)

    def test_one_that_does_not_answer_is_an_error_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "ANSWER_SECONDS", 0.5)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "x")
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
            uri = f"s3://bucket/x?scheme=http&region=a&endpoint_override=127.0.0.1:{silent.getsockname()[1]}"
            done = CliRunner().invoke(app, ["status", "--results", uri])
        assert isinstance(done.exception, StoreError)
        assert str(done.exception).startswith("s3://bucket/x: no answer within 0.5 seconds: see that the bucket")

    def test_one_that_cannot_be_written_is_told_once_and_before_the_trials(self, tiny: Path) -> None:
        done = CliRunner().invoke(app, ["sweep", str(tiny), "--results", "/proc/clray", "--local", "--wandb", "off"])
        assert isinstance(done.exception, StoreError)
        assert "/proc/clray/claims" in str(done.exception)
        assert "cannot be written" in str(done.exception)
        assert "trials to run" not in done.output

    def test_to_look_at_it_leaves_nothing_in_it(self, tmp_path: Path) -> None:
        answers.require_writable(store := Store(tmp_path))
        assert not [file for file in tmp_path.rglob("*") if file.is_file()]
        assert not store.leased()


class TestDoctor:
    def look(self, *arguments: str, code: int = 0, **environment: str | None) -> dict[str, str]:
        done = CliRunner().invoke(app, ["doctor", *arguments], env=environment)
        assert done.exit_code == code, done.output
        lines = [line for line in done.output.splitlines() if line.startswith(("ok ", "note ", "FAULT "))]
        return {line[7:].partition(":")[0]: line for line in lines}

    def test_each_check_is_a_line(self, tmp_path: Path) -> None:
        found = self.look("--results", str(tmp_path))
        named = ["cores", "GPUs", "extras", "Ray", "TMPDIR", "HOME", "cache", "compiled kernels", "results", "output"]
        assert list(found) == [*named, "matplotlib", "W&B"]
        assert f"{machine.cores_given()} for this process, of {os.cpu_count()}" in found["cores"]
        assert f"{tmp_path}, " in found["results"]
        assert not list(tmp_path.iterdir()), "it only looks"

    def test_what_is_wrong_has_a_remedy(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        found = self.look(
            "--results", "/proc/clray", code=1,
            TMPDIR=str(tmp_path / ("x" * 90)), RAY_TMPDIR=None, HOME="/proc/self", CLRAY_CACHE="/proc/cache",
            MPLBACKEND="module://matplotlib_inline.backend_inline", MPLCONFIGDIR="/proc/mpl", WANDB_MODE="nonsense",
            RAY_ADDRESS="10.0.0.1:6379",
        )  # fmt: skip
        assert "characters; with more than" in found["TMPDIR"]
        assert "set RAY_TMPDIR to a folder" in found["TMPDIR"]
        assert found["TMPDIR"].startswith("note")
        assert found["HOME"].startswith("note   HOME: /proc/self cannot be written")
        assert "set CLRAY_CACHE to a folder" in found["cache"]
        assert "MPLBACKEND=module://matplotlib_inline" in found["matplotlib"]
        assert "set MPLCONFIGDIR to a folder" in found["matplotlib"]
        assert "one of online, run" in found["W&B"]
        assert "10.0.0.1:6379" in found["Ray"]
        assert found["results"].startswith("FAULT  results: /proc/clray cannot be written: set --results to")

    def test_no_home_is_told(self, nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "you have none, nothing is used instead" in self.look("--results", str(nobody))["HOME"]
        monkeypatch.setenv("HOME", str(folders.private_folder("home")))
        assert "is used instead: set HOME to a folder of yours" in self.look("--results", str(nobody))["HOME"]

    def test_a_gpu_that_cannot_be_used_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "names", list)
        monkeypatch.setattr(gpu, "device_files", lambda: ["nvidia0"])
        assert "nvidia0 is here and cannot be used (" in self.look("--results", str(tmp_path))["GPUs"]

    def test_a_check_that_fails_does_not_end_the_others(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> list[str]:
            raise RuntimeError("a driver of another version")

        monkeypatch.setattr(gpu, "names", broken)
        found = self.look("--results", str(tmp_path))
        assert "could not be checked (RuntimeError: a driver of another version)" in found["GPUs"]
        assert "W&B" in found

    def test_letters_that_the_output_lacks_are_told(self) -> None:
        code = "from clray.commands.checks import output; print(output())"
        remedy = "set PYTHONIOENCODING=utf-8"
        told = f"note   output: ascii lacks letters that tables are printed with: {remedy}\n"
        assert python(code, PYTHONIOENCODING="ascii") == told
        assert python(code, PYTHONIOENCODING="utf-8") == "ok     output: utf-8\n"


@pytest.mark.slow
def test_a_user_whom_nobody_knows_and_who_can_write_nowhere_but_to_the_results(tiny: Path, tmp_path: Path) -> None:
    """No HOME, no entry in the list of users, an installation of root's."""
    # The right to read is kept: the interpreter itself may lie in a home that is closed to others.
    reads = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "+dac_read_search"]
    stranger = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", *reads]
    try:
        able = subprocess.run([*stranger, sys.executable, "-c", ""], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no setpriv here")
    if able.returncode:
        pytest.skip(f"this process cannot become another user: {able.stderr.strip()}")
    results, temporary_files = tmp_path / "results", tmp_path / "t"
    for folder in (results, temporary_files):
        folder.mkdir()
        folder.chmod(0o777)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary_files)}
    command = [
        *stranger,
        sys.executable,
        "-m",
        "clray",
        "sweep",
        str(tiny),
        "--quick",
        "--local",
        "--results",
        str(results),
    ]
    done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(Store(results).finished()) == 2
    assert [file.name for file in temporary_files.glob("clray-*")] == ["clray-54321-home"]


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_a_launch_on_one_core_in_poor_surroundings(tmp_path: Path) -> None:
    """One core of several, a GPU in Ray's books alone, TMPDIR of 90 characters, and no HOME that can be written."""
    if gpu.names():
        pytest.skip("there is a GPU here")
    file, results = tmp_path / "sweep.yaml", tmp_path / "results"
    file.write_text(
        "version: 1\npaper: mer\ntrack: vision\n"
        "benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 300, seed: 0, source: embedded}\n"
        "model: {name: mlp, hidden: [20]}\nseeds: [0, 1]\nresources: {cpu: 1, gpu: 0.25}\n"
        "variants:\n  online: {method: online, lr: 0.01}\n"
    )
    long = tmp_path / ("x" * (90 - len(str(tmp_path))) if len(str(tmp_path)) < 60 else "x" * 45)
    long.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_")) and k != "CLRAY_CACHE"}
    env = {**kept, "PYTHONPATH": str(ROOT), "TMPDIR": str(long), "HOME": "/proc/self", "MPLCONFIGDIR": str(tmp_path)}
    env["RAY_worker_niceness"] = "0"  # as in conftest.py
    pinned = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
    command = [sys.executable, "-c", f"{pinned}from clray.cli import main; main()", "sweep", str(file)]
    command += ["--results", str(results), "--wandb", "off", "--gpus", "1"]
    refused = subprocess.run([*command, "--require-gpu"], env=env, capture_output=True, text=True, timeout=GUARD)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: --require-gpu: ")
    assert not Store(results).finished()

    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=GUARD)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count(f"No GPU can be used on {socket.gethostname()}: ") == 1
    assert "Ray's temporary files are in /tmp/ray-" in done.stdout
    rays = Path(done.stdout.partition("Ray's temporary files are in ")[2].partition(":")[0])
    assert not rays.exists()
    first, second = sorted(
        (record.provenance for record in Store(results).records()[0]), key=lambda facts: facts["executions"][0]["began"]
    )
    assert second["executions"][0]["began"] >= first["saved"], "never two at once"
    for facts in (first, second):
        assert facts["device"] == "cpu"
        assert facts["machine"]["cores_given"] == 1
        assert facts["machine"]["cores"] == os.cpu_count()
