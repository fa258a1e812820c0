"""The sources of the tasks' texts: their order, checks, conversion, rules for verdicts, and real files."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_language_formats import SST, WIKISQL, WOZ, ask, packed, put, squad

from clray import cache
from clray.episodes.scan import interpret
from clray.errors import DataError
from clray.language import data
from clray.language.datasets import classification, sst
from clray.language.scoring import score
from clray.language.tasks import TASKS

REAL = os.environ.get("CLRAY_DATA")
ADDRESS = "http://127.0.0.1:9/"
"""Nobody answers there."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty ``CLRAY_DATA/lamol``, an empty cache, and no way to download."""
    monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
    for task, published in data.PUBLISHED.items():
        forms = tuple(
            dataclasses.replace(form, addresses={file: ADDRESS + file for file in form.addresses})
            for form in published.forms
        )
        monkeypatch.setitem(data.PUBLISHED, task, dataclasses.replace(published, forms=forms))
    (tmp_path / "data" / "lamol").mkdir(parents=True)
    return tmp_path / "data" / "lamol"


def publish(monkeypatch: pytest.MonkeyPatch, task: str, files: dict[str, Any], **changes: Any) -> None:
    """Have a task's published files be these, and whole."""
    published = data.PUBLISHED[task]
    first, form, *others = published.forms
    sums = {name: hashlib.sha256(text if isinstance(text, bytes) else text.encode()) for name, text in files.items()}
    made = {"files": {name: sum.hexdigest() for name, sum in sums.items()}, "sizes": (2, 2, 2), **changes}
    forms = (first, dataclasses.replace(form, **made), *others)
    monkeypatch.setitem(data.PUBLISHED, task, dataclasses.replace(published, forms=forms))


@pytest.fixture
def sst_here(home, monkeypatch) -> Path:
    """A whole SST of two examples a set."""
    publish(monkeypatch, "sst", SST)
    return put(home / "sst", SST)


@pytest.fixture
def conversions(monkeypatch) -> list[str]:
    """The tasks that were converted since."""
    convert, seen = data._convert, []

    def counted(found: data.Found) -> Any:
        seen.append(found.name)
        return convert(found)

    monkeypatch.setattr(data, "_convert", counted)
    return seen


def copy_files(source: Path, target: Path) -> None:
    """Copy a folder's files; the copies can be written to, where the originals may be read only."""
    for file in source.rglob("*"):
        if file.is_file():
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)


class TestOrder:
    def test_the_named_folder_then_the_cache(self, sst_here, tmp_path):
        put(tmp_path / "cache" / "lamol" / "sst", SST)
        first = data.locate(["sst"])
        assert first["source"] == "CLRAY_DATA"
        shutil.rmtree(sst_here)
        second = data.locate(["sst"])
        assert second["source"] == "cache"
        assert second["fingerprint"] == first["fingerprint"]
        assert data.find("sst").folder == tmp_path / "cache" / "lamol" / "sst"

    def test_the_authors_own_files_come_first(self, home, sst_here):
        names = data.PUBLISHED["sst"].forms[0].files
        put(home / "official", dict.fromkeys(names, squad(ask(0, "positive"))))
        found = data.find("sst")
        assert found.folder == home / "official"
        assert "no checksum of the authors' files" in found.form.unverified

    def test_what_is_not_here_says_what_to_do(self, home):
        assert data.find("srl") is None
        with pytest.raises(DataError, match=r"srl: .*neither below CLRAY_DATA/lamol nor in .*: clray data fetch srl$"):
            data.locate(["srl"])
        with pytest.raises(DataError, match=r"amazon: .*: put train\.csv and test\.csv of amazon_review_full_csv"):
            data.locate(["amazon"])

    def test_a_part_of_the_files(self, sst_here):
        (sst_here / "dev_binary_sent.csv").unlink()
        with pytest.raises(DataError, match=r"sst: incomplete: missing dev_binary_sent\.csv"):
            data.find("sst")

    def test_no_such_folder_or_task(self, monkeypatch):
        with pytest.raises(DataError, match=r"imdb: no such task; there are sst, srl"):
            data.locate(["imdb"])
        monkeypatch.setenv("CLRAY_DATA", "/no/such")
        with pytest.raises(DataError, match="CLRAY_DATA=/no/such: no such folder"):
            data.find("sst")

    def test_every_task_is_published(self):
        assert data.DATASETS is data.PUBLISHED
        assert set(data.PUBLISHED) == set(TASKS)
        for published in data.PUBLISHED.values():
            assert published.origin
            assert published.download or published.advice
            for form in published.forms:
                assert set(form.addresses) in (set(), set(form.files))
                assert not form.addresses or form.checksummed
                assert all(checksum is None or len(checksum) == 64 for checksum in form.files.values())


class TestJudged:
    def test_a_whole_set_has_no_remarks(self, sst_here):
        part = data.locate(["sst"])["parts"]["sst"]
        assert set(part) == {"name", "source", "fingerprint", "sizes"}
        assert part["sizes"] == [2, 2, 2]

    def test_other_sizes_than_lamols_are_partial(self, monkeypatch, sst_here):
        publish(monkeypatch, "sst", SST, sizes=None)
        found = data.locate(["sst"])
        assert found["partial"] == "sst: examples for training, development and test: 2 of 6,920, 2 of 872, 2 of 1,821"

    def test_a_substitute_is_partial(self, home):
        items = json.dumps([{"label": "World", "sentence": "Text: x"}])
        sums = {
            name: hashlib.sha256(items.encode()).hexdigest() for name in ("TC_agnews_train.json", "TC_agnews_test.json")
        }
        *forms, sample = data.PUBLISHED["ag"].forms
        data.PUBLISHED["ag"] = dataclasses.replace(
            data.PUBLISHED["ag"], forms=(*forms, dataclasses.replace(sample, files=sums))
        )
        put(home / "tc_olora", dict.fromkeys(sums, items))
        found = data.locate(["ag", "scan.count"])
        assert found["partial"].startswith("ag: O-LoRA's samples, a substitute for the 115,000")
        assert found["source"] == "CLRAY_DATA, grammar"

    def test_a_published_table_comes_before_a_substitute(self, home):
        put(home / "tc_olora", {"SC_yelp_train.json": "[]"})
        put(home / "yelp", dict.fromkeys(("train.csv", "test.csv"), '"1","bad"\n'))
        assert data.find("yelp").form.partial == ""

    def test_a_draw_that_nobody_published_is_unverified(self, home, monkeypatch):
        monkeypatch.setattr(classification, "TRAIN", 3)
        monkeypatch.setattr(classification, "TEST", 1)
        files = {"train.csv": '"1","bad"\n' * 5, "test.csv": '"1","bad"\n' * 5}
        publish(monkeypatch, "yelp", files, sizes=(3, 1, 1))
        put(home / "yelp", files)
        found = data.locate(["yelp"])
        assert "partial" not in found
        assert found["unverified"].startswith("yelp: which 115,000 and 7,600 rows LAMOL took is not published")

    def test_only_the_grammar_is_embedded(self, sst_here):
        assert data.locate(["scan.first", "scan.count"])["source"] == "embedded"
        assert data.locate(["scan.first", "sst"])["source"] == "grammar, CLRAY_DATA"

    def test_order_and_names_are_in_the_fingerprint(self):
        one, other = data.locate(["scan.first", "scan.count"]), data.locate(["scan.count", "scan.first"])
        assert one["name"] == "scan.first+scan.count"
        assert one["fingerprint"] != other["fingerprint"]


class TestOnce:
    def test_files_are_converted_once(self, sst_here, conversions):
        found = data.locate(["sst"])
        first = data.load(found)["sst"]
        assert data.locate(["sst"]) == found
        assert data.load(found)["sst"] == first
        assert conversions == ["sst"]
        assert [len(first.train), first.test[0].answers, first.dev[1].id] == [2, ("positive",), "dev_1"]

    def test_what_is_read_back_is_what_was_converted(self, home, monkeypatch):
        publish(monkeypatch, "woz.en", WOZ, sizes=None)
        form = data.PUBLISHED["wikisql"].forms[2]
        put(home / "woz.en", WOZ)
        put(home / "wikisql", WIKISQL)
        found = data.locate(["woz.en", "wikisql"])
        loaded = data.load(found)
        for task, part in found["parts"].items():
            assert data.fingerprint(loaded[task]) == part["fingerprint"]
        straight = form.read(data.Files(home / "wikisql"))
        assert (loaded["wikisql"].train, loaded["wikisql"].dev, loaded["wikisql"].test) == straight
        assert loaded["woz.en"].test[1].gold == "food: thai; address"

    def test_where_dev_and_test_are_one_they_stay_one(self, home, monkeypatch):
        files = {"train-v1.1.json": squad(ask("a", "sea")), "dev-v1.1.json": squad(ask("b", "sea", "a sea"))}
        publish(monkeypatch, "squad1", files)
        put(home / "squad1", files)
        found = data.locate(["squad1"])
        loaded = data.load(found)["squad1"]
        assert loaded.dev is loaded.test
        assert loaded.test[0].answers == ("sea", "a sea")

    def test_a_changed_file_is_noticed(self, sst_here, conversions, monkeypatch):
        found = data.locate(["sst"])
        changed = SST | {"test_binary_sent.csv": "label,sentence\n0,Other.\n1,Good.\n"}
        put(sst_here, changed)
        with pytest.raises(DataError, match=r"test_binary_sent\.csv: not the published file: sha256 .*expected"):
            data.locate(["sst"])
        publish(monkeypatch, "sst", changed)
        assert data.locate(["sst"])["fingerprint"] != found["fingerprint"]
        assert data.load(found)["sst"].test[1].answers == ("negative",)  # what was converted is still there
        shutil.rmtree(cache.cache_folder() / "decoded")
        with pytest.raises(DataError, match=r"sst: .* holds other content than"):
            data.load(found)

    def test_torn_parquet_is_converted_again(self, sst_here, conversions):
        found = data.locate(["sst"])
        (path,) = (cache.cache_folder() / "decoded").glob("sst-*/train.parquet")
        path.write_bytes(path.read_bytes()[:-10])
        assert len(data.load(found)["sst"].train) == 2
        assert conversions == ["sst", "sst"]
        assert data.load(found)["sst"].train
        assert conversions == ["sst", "sst"]

    def test_a_changed_converter_converts_again(self, sst_here, conversions, monkeypatch):
        data.locate(["sst"])
        monkeypatch.setattr(data, "_converters", lambda: "another version")
        data.locate(["sst"])
        assert conversions == ["sst", "sst"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
    def test_a_cache_that_cannot_be_written(self, sst_here, tmp_path):
        (tmp_path / "cache").mkdir(mode=0o500)
        assert len(data.load(data.locate(["sst"]))["sst"].train) == 2

    def test_a_cache_that_is_no_folder(self, sst_here, tmp_path, conversions):
        (tmp_path / "cache").write_text("")
        assert len(data.load(data.locate(["sst"]))["sst"].train) == 2

    def test_verify_reads_anew(self, sst_here, conversions):
        found = data.verify("sst")
        assert data.verify("sst") == found == data.locate(["sst"])["parts"]["sst"]
        assert conversions == ["sst", "sst"]
        path = sst_here / "dev_binary_sent.csv"
        stat = path.stat()
        path.write_text(path.read_text().replace("Dull", "Null"))  # as long as before, and as old
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert data.locate(["sst"])["parts"]["sst"] == found
        with pytest.raises(DataError, match="not the published file"):
            data.verify("sst")

    def test_verify_without_files(self):
        assert data.verify("scan.count")["source"] == "grammar"
        with pytest.raises(DataError, match="srl: its files are neither"):
            data.verify("srl")

    def test_an_empty_set(self, home, monkeypatch):
        files = SST | {"dev_binary_sent.csv": "label,sentence\n"}
        publish(monkeypatch, "sst", files)
        put(home / "sst", files)
        with pytest.raises(DataError, match="hold no example for dev"):
            data.locate(["sst"])

    def test_half_a_character(self, home):
        put(home / "squad2", dict.fromkeys(("train-v2.0.json", "dev-v2.0.json"), squad(ask("a", "\ud83d"))))
        forms = data.PUBLISHED["squad2"].forms
        open_form = dataclasses.replace(forms[1], files=dict.fromkeys(forms[1].files))
        data.PUBLISHED["squad2"] = dataclasses.replace(data.PUBLISHED["squad2"], forms=(open_form,))
        with pytest.raises(DataError, match="a text that is not Unicode"):
            data.locate(["squad2"])

    def test_compressed_files_are_the_same_content(self, sst_here):
        plain = data.locate(["sst"])
        for path in list(sst_here.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        assert data.locate(["sst"]) == plain


class TestFetch:
    @pytest.fixture
    def served(self, tmp_path, monkeypatch) -> Iterator[Path]:
        """A folder that a server of this machine serves as the place of SST's files."""
        folder = put(tmp_path / "served", SST)
        with subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as server:  # fmt: skip
            assert server.stdout is not None
            port = server.stdout.readline().partition(" port ")[2].split()[0]
            publish(monkeypatch, "sst", SST, addresses={name: f"http://127.0.0.1:{port}/{name}" for name in SST})
            yield folder
            server.terminate()

    def test_fetched_files_are_found(self, served, tmp_path):
        assert data.locate(["sst"], fetch=True)["source"] == "cache"
        assert (tmp_path / "cache" / "lamol" / "sst" / "dev_binary_sent.csv").read_text() == SST["dev_binary_sent.csv"]

    def test_other_content_is_not_kept(self, served, tmp_path):
        put(served, {"dev_binary_sent.csv": "other"})
        with pytest.raises(DataError, match=r"sst: dev_binary_sent\.csv could not be downloaded:\n.*hash"):
            data.fetch("sst")
        assert not (tmp_path / "cache" / "lamol" / "sst" / "dev_binary_sent.csv").exists()

    def test_a_worker_fetches_what_its_trial_is_of(self, served, tmp_path):
        found = data.locate(["sst"], fetch=True)
        shutil.rmtree(tmp_path / "cache")
        assert len(data.load(found)["sst"].train) == 2

    def test_nobody_answers(self):
        with pytest.raises(DataError, match=r"woz\.en: woz_train_en\.json could not be downloaded:\n.*no connection"):
            data.locate(["woz.en"], fetch=True)

    def test_what_clray_cannot_download(self):
        with pytest.raises(DataError, match=r"iwslt\.en\.de: clray cannot download it: put "):
            data.fetch("iwslt.en.de")

    def test_a_substitute_is_kept_where_the_whole_cannot_be_had(self, home):
        if not REAL:
            pytest.skip("needs the real files: set CLRAY_DATA to a folder that holds lamol/tc_olora")
        copy_files(Path(REAL) / "lamol" / "tc_olora", home / "tc_olora")
        assert "substitute" in data.locate(["yelp"], fetch=True)["partial"]

    def test_an_archive_is_read_as_it_was_fetched(self, tmp_path, monkeypatch):
        raw = packed({f"data/{name}": text for name, text in WIKISQL.items()}, "w:bz2")
        publish(monkeypatch, "wikisql", {"data.tar.bz2": raw})
        put(tmp_path / "cache" / "lamol" / "wikisql", {"data.tar.bz2": raw})
        found = data.locate(["wikisql"])
        assert found["parts"]["wikisql"]["sizes"] == [2, 2, 2]
        assert data.load(found)["wikisql"].test[1].answers == ("SELECT Player FROM table",)


class TestGrammar:
    def test_the_same_commands_in_all_three(self):
        tasks = ["scan.actions", "scan.first", "scan.count"]
        actions, first, count = data.load(data.locate(tasks)).values()
        for a, f, c in zip(
            actions.train + actions.test, first.train + first.test, count.train + count.test, strict=True
        ):
            done = interpret(a.context)
            assert a.context == f.context == c.context
            assert (a.answers, f.answers, c.answers) == ((" ".join(done),), (done[0],), (str(len(done)),))

    def test_training_and_test_share_no_command(self):
        made = data.load(data.locate(["scan.first"]))["scan.first"]
        train, test = ({e.context for e in examples} for examples in (made.train, made.test))
        assert (len(train), len(test)) == (1000, 200)
        assert not train & test
        assert len({e.answers for e in made.train}) == 6

    def test_the_draw_never_changes(self):
        assert data.locate(["scan.actions"])["parts"]["scan.actions"]["fingerprint"] == "546f102beec0de51"

    def test_other_examples_than_the_trials(self):
        found = data.locate(["scan.count"])
        found["parts"]["scan.count"]["fingerprint"] = "0" * 16
        with pytest.raises(DataError, match=r"scan\.count: this clray makes other examples than those of"):
            data.load(found)


class TestReal:
    """The published files, where ``CLRAY_DATA`` names a folder that holds them."""

    @pytest.fixture(autouse=True)
    def real(self, home, monkeypatch) -> None:
        if not REAL or not (Path(REAL) / "lamol").is_dir():
            pytest.skip("needs the published files: set CLRAY_DATA to a folder that holds lamol/")
        monkeypatch.setenv("CLRAY_DATA", REAL)

    @pytest.mark.parametrize("task", ["sst", "woz.en", "schema"])
    def test_whole_sets_are_as_large_as_lamols(self, task):
        part = data.locate([task])["parts"][task]
        assert tuple(part["sizes"]) == TASKS[task].sizes
        assert not {"partial", "unverified"} & set(part)
        loaded = data.load({"parts": {task: part}})[task]
        ids = [e.id for e in (*loaded.train, *loaded.dev, *loaded.test)]
        assert len(set(ids)) == len(ids)
        assert all(e.context and e.question and e.answers for e in loaded.test)

    @pytest.mark.parametrize(("task", "key"), [("sst", None), ("woz.en", "turn")])
    def test_rows_are_as_the_official_conversion_made_them(self, task, key):
        path = Path(__file__).resolve().parents[1] / "fixtures" / "lamol" / "encoding.json"
        rows = json.loads(path.read_text())["tasks"][task]["rows"]
        train, _, test = data.load(data.locate([task]))[task][1:]
        converted = {(e.context, e.question, e.answers) for e in (*train, *test)}
        assert {(r["context"], r["question"], tuple(r["answers"])) for r in rows} <= converted
        if key:
            assert [f"train_{r[key]}" for r in rows] == [e.id for e in train[: len(rows)]]

    def test_empty_answers_to_dialogues_score_what_the_authors_data_gave(self):
        """A log of others, on the authors' own data, has this very number."""
        test = data.load(data.locate(["woz.en"]))["woz.en"].test
        assert score("woz.en", [""] * len(test), test)["turn_goal_em"] == 52.308626974483595

    def test_ags_published_test_set(self):
        folder = Path(REAL or "") / "lamol" / "ag"
        test = classification._examples("ag", data.Files(folder).text("test.csv"), "test", classification.TEST)
        assert len(test) == 7600
        assert {answer: sum(e.answers == (answer,) for e in test) for answer in ("World", "Sci/Tech")} == {
            "World": 1900, "Sci/Tech": 1900,
        }  # fmt: skip
        checksum = data.PUBLISHED["ag"].forms[1].files["test.csv"]
        assert hashlib.sha256(data.content(folder / "test.csv.gz")).hexdigest() == checksum

    def test_substitutes(self):
        found = data.locate(["srl_gs", "ag", "amazon", "yelp", "dbpedia"])
        assert all("substitute" in part["partial"] for part in found["parts"].values())
        sizes = {task: part["sizes"] for task, part in found["parts"].items()}
        assert sizes == {
            "srl_gs": [7188, 3623, 3479],
            "ag": [4000, 7600, 7600],
            "amazon": [5000, 7600, 7600],
            "yelp": [4000, 1000, 1000],
            "dbpedia": [6080, 1520, 1520],
        }

    def test_sst_of_another_publisher_is_refused(self, home, monkeypatch):
        monkeypatch.setenv("CLRAY_DATA", str(home.parent))
        copy_files(Path(REAL or "") / "lamol" / "sst", home / "sst")
        path = home / "sst" / "test_binary_sent.csv"
        path.write_text(path.read_text().replace("\n0,", "\n1,", 1))
        with pytest.raises(DataError, match=rf"test_binary_sent\.csv: not the published file.*{sst.SST.origin}"):
            data.locate(["sst"])


class TestForeignContent:
    """Content that the readers do not expect raises an error that names the file, and never another exception."""

    WOZ_TURNS = {
        "slots that are no list": {"belief_state": [{"slots": 5}], "system_acts": [], "transcript": ""},
        "a slot of numbers": {
            "belief_state": [{"act": "inform", "slots": [[1, 2]]}, {"act": "request", "slots": [["slot", 3]]}],
            "system_acts": [],
            "transcript": "",
        },
        "acts of numbers": {"belief_state": [], "system_acts": [5], "transcript": ""},
    }

    @pytest.mark.parametrize("turn", WOZ_TURNS)
    def test_of_dialogues(self, home, monkeypatch, turn):
        files = WOZ | {"woz_validate_en.json": json.dumps([{"dialogue": [self.WOZ_TURNS[turn]]}])}
        publish(monkeypatch, "woz.en", files)
        put(home / "woz.en", files)
        with pytest.raises(DataError, match=r"woz\.en/woz_validate_en\.json: "):
            data.locate(["woz.en"])

    def test_of_tables(self, home):
        table = json.dumps({"id": "t", "header": [1, 2]}) + "\n"
        asked = json.dumps({"table_id": "t", "question": "?", "sql": {"agg": 0, "sel": 0, "conds": []}}) + "\n"
        files = {name: table if "tables" in name else asked for name in WIKISQL}
        put(home / "wikisql", files)
        with pytest.raises(DataError, match=r"wikisql/train\.jsonl: torn or foreign: TypeError"):
            data.locate(["wikisql"])

    @pytest.mark.parametrize("text", ["[" * 100_000, "[" + "1" * 5_000 + "]", "[NaN]", ""])
    def test_of_json(self, home, monkeypatch, text):
        files = WOZ | {"woz_train_en.json": text}
        publish(monkeypatch, "woz.en", files)
        put(home / "woz.en", files)
        with pytest.raises(DataError, match=r"woz\.en/woz_train_en\.json"):
            data.locate(["woz.en"])

    def test_of_a_locked_archive(self, home, monkeypatch):
        """A zip file whose entries say that they are encrypted."""
        import io
        import zipfile

        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("multinli_1.0_train.jsonl", "{}")
        raw = bytearray(made.getvalue())
        for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            raw[raw.index(mark) + place] |= 1
        publish(monkeypatch, "multinli.in.out", {"multinli_1.0.zip": bytes(raw)})
        put(home / "multinli.in.out", {"multinli_1.0.zip": bytes(raw)})
        with pytest.raises(DataError, match=r"multinli_1\.0\.zip: torn or foreign: .*encrypted"):
            data.locate(["multinli.in.out"])


def test_crlf_line_ends_are_named(sst_here):
    path = sst_here / "dev_binary_sent.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match=r"dev_binary_sent\.csv: not the published file: the file has CRLF line ends"):
        data.locate(["sst"])
    path.write_bytes(b"another\r\nfile\r\n")
    with pytest.raises(DataError) as caught:
        data.locate(["sst"])
    assert "CRLF" not in str(caught.value)
