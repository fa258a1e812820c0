"""The files beside a language trial's record, and ``clray samples``, which shows its pseudo-samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clray.cli import app
from clray.errors import ClrayError, DataError, DeclarationError
from clray.language import export
from clray.language.export import Prediction, PseudoSample, Tally
from clray.metrics import Measurement
from clray.record import Record
from clray.store import Store
from clray.trial import Trial

NO_ANSWER = "it has no __ans__"
SAMPLES = [
    PseudoSample("srl", "sst", [50260, 64], "__gen__ a [b]film. __ans__ good", "a [b]film.", "good", ""),
    PseudoSample("srl", "sst", [50260, 9], "__gen__ on and on", "__gen__ on and on", None, NO_ANSWER),
    PseudoSample("woz.en", "sst", [50260], "__gen__ 𝄞 \x1b[31m__ans__", "𝄞 \x1b[31m", "", ""),
    PseudoSample("woz.en", "srl", [50260], "__gen__ who? __ans__ he\nand she", "who?", "he\nand she", ""),
    PseudoSample("woz.en", "sst", [50260, 7], "__gen__ more", "", None, NO_ANSWER),
    PseudoSample("woz.en", "sst", [50260, 8], "__gen__ two __ans__ __ans__", "", None, "it has 2 __ans__"),
    PseudoSample("woz.en", "sst", [50260, 9], "__gen__ again", "", None, NO_ANSWER),
]


class TestFiles:
    def test_metrics_in_the_official_layout(self):
        measured = [{"sst": {"em": 20.0, "nf1": 55.39682539682539}, "woz.en": {"joint_goal_em": 85.71428571428571}}]
        assert json.loads(export.metrics_json(measured)) == measured
        assert export.read_metrics(export.metrics_json(measured)) == measured
        assert export.read_metrics(b'[{"sst": {"em": 20}}, {"sst": {"em": 30.5}}]')[1] == {"sst": {"em": 30.5}}

    def test_samples_and_predictions_come_back(self):
        assert export.read_samples(export.samples_json(SAMPLES)) == SAMPLES
        predictions = [
            Prediction("srl", "sst", "3", [" good", ""], " \ud83d bad\n"),
            Prediction("srl", "srl", "", [], ""),
        ]
        assert export.read_predictions(export.predictions_json(predictions)) == predictions
        assert export.read_samples(export.samples_json([])) == []

    def test_one_object_a_line(self):
        lines = export.samples_json(SAMPLES).decode().splitlines()
        assert len(lines) == len(SAMPLES) + 2
        assert json.loads(lines[2].rstrip(",")) == SAMPLES[1]._asdict()

    def test_tallies(self):
        assert export.tallies(SAMPLES) == [
            Tally("srl", "sst", 1, {NO_ANSWER: 1}),
            Tally("woz.en", "sst", 1, {NO_ANSWER: 2, "it has 2 __ans__": 1}),
            Tally("woz.en", "srl", 1, {}),
        ]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b'[{"after"', "place: not JSON: "),
            (b"\xff\xfe", "place: not JSON: "),
            (b'{"after": 1}', "place: Input should be a valid list"),
            (b"[3]", "place: 0"),
            (export.samples_json(SAMPLES).replace(b'"dropped"', b'"drooped"', 1), "place: 0.dropped: Field required"),
            (
                export.samples_json(SAMPLES).replace(b"[50260, 9]", b'["x"]', 1),
                "place: 1.ids.0: Input should be a valid i",
            ),
        ],
    )
    def test_what_is_no_list_of_samples(self, content, said):
        with pytest.raises(DataError) as caught:
            export.read_samples(content, "place")
        assert str(caught.value).startswith(said)

    @pytest.mark.parametrize("content", [b'{"sst": {"em": 3}}', b'[{"sst": 3}]', b'[{"sst": {"em": "3"}}]'])
    def test_what_is_no_metrics_file(self, content):
        with pytest.raises(DataError, match=r"^metrics\.json: "):
            export.read_metrics(content)


def declared(track: str) -> Trial:
    return Trial(
        version=1, track=track, benchmark={}, model={}, method="lamol", hyperparameters={}, evaluate="after_task",
        randomness="clray", engine="auto", precision="float32", seed=0, task_order=None,
    )  # fmt: skip


ID = declared("language").id("0")


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Store("results")


def write(store: Store, track: str = "language", samples: bytes | None = None, **changed: Any) -> str:
    """Put a trial into the store. Returns its id, ``ID`` for one of the track language."""
    trial, data = declared(track), {"name": "sst", "source": "CLRAY_DATA", "fingerprint": "0"}
    record = Record(trial.id("0"), trial, data, [Measurement(1, 1, 0, "accuracy", 0.5)], **changed)
    store.write(record)
    if samples is not None:
        store.write_artifact(record.id, export.SAMPLES, samples)
    return record.id


def samples(*arguments: object) -> str:
    """Run the command and return its output; clray's own errors are raised."""
    result = CliRunner().invoke(app, ["samples", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class TestCommand:
    def test_how_many_were_kept_and_dropped_and_why(self, store):
        write(store, samples=export.samples_json(SAMPLES))
        said = samples(ID)
        assert f"{ID}: 7 pseudo-samples, 3 kept, 4 dropped\n" in said
        assert f"\nsst, before srl: 1 kept, 1 dropped ({NO_ANSWER})\n" in said
        assert f"\nsst, before woz.en: 1 kept, 2 dropped ({NO_ANSWER}), 1 dropped (it has 2 __ans__)\n" in said
        assert "\nsrl, before woz.en: 1 kept\n" in said

    def test_a_text_is_shown_as_it_is_and_harms_no_terminal(self, store):
        write(store, samples=export.samples_json(SAMPLES))
        said = samples(ID)
        row = next(line for line in said.splitlines() if "film" in line)
        assert "a [b]film." in row
        assert "good" in row
        assert "\x1b" not in said
        assert "𝄞 \\x1b[31m" in said
        assert "he\\nand she" in said
        dropped = next(line for line in said.splitlines() if "on and on" in line)
        assert f"dropped: {NO_ANSWER}" in dropped

    def test_the_middle_of_a_long_one_is_left_out(self, store):
        text = "begin " + "word " * 400 + "end"
        write(store, samples=export.samples_json([PseudoSample("srl", "sst", [1], text, text, "x", "")]))
        said = samples(ID)
        assert len(said) < 1500
        assert "begin" in said
        assert " … " in said
        assert "end" in said
        assert json.loads(samples(ID, "--json"))["samples"][0]["question"] == text

    def test_only_some_of_them(self, store):
        write(store, samples=export.samples_json(SAMPLES))
        said = samples(ID, "--task", "sst", "--count", 1)
        assert f"{ID}: 6 pseudo-samples, 2 kept, 4 dropped" in said
        assert "film" in said
        assert "on and on" not in said
        assert "who?" not in said
        counted = samples(ID, "--count", 0)
        assert "sst, before srl: 1 kept" in counted
        assert "film" not in counted

    def test_five_of_each_unless_told_otherwise(self, store):
        many = [PseudoSample("srl", "sst", [i], f"number {i}", f"number {i}", "x", "") for i in range(8)]
        write(store, samples=export.samples_json(many))
        assert samples(ID).count("number") == 5
        assert samples(ID, "--count", 7).count("number") == 7

    def test_as_json(self, store):
        write(store, samples=export.samples_json(SAMPLES))
        said = json.loads(samples(ID, "--json"))
        assert said["trial"] == ID
        assert said["counts"][0] == {"before": "srl", "of": "sst", "kept": 1, "dropped": {NO_ANSWER: 1}}
        assert sorted(s["text"] for s in said["samples"]) == sorted(s.text for s in SAMPLES)
        some = json.loads(samples(ID, "--json", "--task", "srl", "--count", 3))
        assert [s["of"] for s in some["samples"]] == ["srl"]

    def test_a_trial_that_wrote_none(self, store):
        write(store, samples=export.samples_json([]))
        assert samples(ID) == f"{ID}: no pseudo-samples were written\n"

    def test_a_task_that_has_none(self, store):
        write(store, samples=export.samples_json(SAMPLES))
        with pytest.raises(DeclarationError, match=r"--task srk: .*did you mean 'srl'\? allowed: sst, srl"):
            samples(ID, "--task", "srk")

    def test_an_unknown_trial(self, store):
        with pytest.raises(ClrayError, match=f"{ID}: no record of such a trial is in .*results"):
            samples(ID)
        assert not Path("results").exists()

    def test_a_trial_that_somebody_has_just_begun(self, store):
        store.create_lease(ID, b"{}")
        with pytest.raises(ClrayError, match=f"{ID}: it is not finished"):
            samples(ID)

    def test_an_unfinished_trial(self, store):
        write(store, status="running", provenance={"progress": 0.25})
        with pytest.raises(ClrayError, match=f"{ID}: it is not finished, but at 25%"):
            samples(ID)

    def test_a_failed_trial(self, store):
        store.write_failure(ID, {"error": "out of memory"})
        with pytest.raises(ClrayError, match=f"{ID}: .*its last attempt failed: out of memory"):
            samples(ID)

    @pytest.mark.parametrize("status", ["finished", "running"])
    def test_a_trial_of_another_track(self, store, status):
        id = write(store, track="vision", status=status)
        with pytest.raises(ClrayError, match=f"{id}: a trial of track vision; only track language"):
            samples(id)

    def test_a_method_that_keeps_none(self, store):
        write(store)
        with pytest.raises(ClrayError, match=f"{ID}: its method, lamol, keeps no pseudo-samples"):
            samples(ID)

    def test_a_torn_file_and_a_torn_record(self, store):
        write(store, samples=export.samples_json(SAMPLES)[:50])
        with pytest.raises(DataError, match=rf"artifacts/{ID}\.samples\.json: not JSON"):
            samples(ID)
        Path(store.path("records", f"{ID}.parquet")).write_bytes(b"PAR1")
        with pytest.raises(ClrayError, match=rf"records/{ID}\.parquet: skipped: not a readable record"):
            samples(ID)


def test_what_is_not_finite_is_null_in_the_official_layout():
    content = export.metrics_json([{"sst": {"em": 50.0, "f1": float("nan"), "bleu": float("inf")}}])
    assert json.loads(content) == [{"sst": {"em": 50.0, "f1": None, "bleu": None}}]
    assert export.read_metrics(content) == [{"sst": {"em": 50.0, "f1": None, "bleu": None}}]
