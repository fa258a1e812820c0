"""A short run of the soak of bench/soak.py, and a check that it would find the faults it looks for."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, environment

from clray.record import Record
from clray.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kernels")]
sys.path.insert(0, str(ROOT / "bench"))


def test_a_round_of_the_soak(ray_tmpdir: Path, tmp_path: Path) -> None:
    import soak

    command = [sys.executable, str(ROOT / "bench" / "soak.py"), "--minutes", "0", "--seed", "2", "--folder", tmp_path]
    run = subprocess.run(command, env=environment(ray_tmpdir), capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert lines[-1] == "differing: 0"
    harms = re.search(r"launches: (.*)", lines[-4])
    assert harms is not None, lines
    assert sum(int(n) for n in re.findall(r"(\d+) x ", harms[1])) >= 2

    # What it compared is there to be compared again, this time with something wrong.
    store = Store(tmp_path / "round-0" / "results")
    reference = soak.numbers(Store(tmp_path / "undisturbed"))
    assert len(reference) == 6
    assert soak.differing(store, reference) == []
    one, two, *_ = sorted(reference)
    record = store.read(one)
    assert isinstance(record, Record)
    last = record.measurements[-1]
    altered = [*record.measurements[:-1], last._replace(value=last.value + 2**-40)]
    store.write(dataclasses.replace(record, measurements=altered))
    Path(store.path("records", f"{two}.parquet")).write_bytes(b"torn")
    assert sorted(soak.differing(store, reference)) == [one, two]
