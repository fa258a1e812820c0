"""Every published format of the tasks' texts, from small hand-written files; and the errors for wrong files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from clray.errors import DataError
from clray.language.datasets import PUBLISHED, classification, cnn_dailymail, official, qasrl
from clray.language.datasets.files import Files, located
from clray.language.datasets.published import Form, Splits
from clray.language.examples import Example
from clray.language.scoring import score

ROOT = Path(__file__).resolve().parents[1]


def put(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def read(task: str, folder: Path, form: int = 1) -> Splits:
    """A task's examples by one of its forms: 0 is LAMOL's own files."""
    chosen: Form = PUBLISHED[task].forms[form]
    assert all(located(folder, file, chosen.inner) for file in chosen.files)
    return chosen.read(Files(folder, chosen.inner, next(iter(chosen.files)) if chosen.members else "", chosen.members))


def packed(files: dict[str, str | bytes], mode: str) -> bytes:
    """An archive of tar with these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, text in files.items():
            raw = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return made.getvalue()


def lines(*objects: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


def texts(examples: list[Example]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(e.context, e.question, e.answers) for e in examples]


# --------------------------------------------------------------------------------------------------------------
# SST


SST = {
    f"{split}_binary_sent.csv": f'label,sentence\n1,"Warm, ""funny"" {split}."\n0,Dull.\n'
    for split in ("train", "dev", "test")
}


class TestSst:
    def test_read(self, tmp_path):
        train, dev, test = read("sst", put(tmp_path, SST))
        question = "Is this review negative or positive?"
        assert train == [
            Example('Warm, "funny" train.', question, ("positive",), "train_0"),
            Example("Dull.", question, ("negative",), "train_1"),
        ]
        assert (dev[0].id, test[1].id) == ("dev_0", "test_1")

    def test_a_compressed_file_will_do(self, tmp_path):
        name = "train_binary_sent.csv"
        put(tmp_path, SST | {f"{name}.gz": gzip.compress(SST[name].encode())})
        (tmp_path / name).unlink()
        assert len(read("sst", tmp_path)[0]) == 2

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1,Fine.\n", r"csv, line 1: expected the columns label,sentence"),
            ("label,sentence\n1,Fine.\n2,Odd.\n", r"csv, line 3: label '2', expected 0 or 1"),
            ("label,sentence\n1,Fine.\n0\n", r"csv, line 3: 1 fields, expected 2: label, sentence"),
            ('label,sentence\n1,Fine.\n0,"torn', r"csv, line 3: not comma-separated values"),
            (b"label,sentence\n1,Fine.\n0,\xff\n", r"csv, line 3: not UTF-8"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        put(tmp_path, SST | {"dev_binary_sent.csv": text})
        with pytest.raises(DataError, match=message):
            read("sst", tmp_path)

    def test_a_torn_compressed_file(self, tmp_path):
        put(tmp_path, SST | {"dev_binary_sent.csv.gz": gzip.compress(b"label,sentence\n" * 50)[:-9]})
        (tmp_path / "dev_binary_sent.csv").unlink()
        with pytest.raises(DataError, match=r"dev_binary_sent\.csv\.gz: torn or foreign: "):
            read("sst", tmp_path)


# --------------------------------------------------------------------------------------------------------------
# WOZ


def turn(transcript: str, slots: list[tuple[str, list[list[str]]]], acts: list[Any] | None = None) -> dict[str, Any]:
    state = [{"act": act, "slots": given} for act, given in slots]
    return {"transcript": transcript, "system_acts": acts or [], "belief_state": state}


DIALOGUES = [
    {
        "dialogue_idx": 600,
        "dialogue": [
            turn("Cheap  food?", [("inform", [["price range", "cheap"]])]),
            turn(
                "Thai, and the address.",
                [
                    ("inform", [["price range", "cheap"]]),
                    ("inform", [["food", "thai"]]),
                    ("request", [["slot", "address"]]),
                ],
                ["food", ["area", "north"]],
            ),
            turn("Indian.", [("inform", [["price range", "cheap"], ["food", "indian"]])], ["address"]),
            turn("Bye.", [("inform", [["price range", "cheap"], ["food", "indian"]])]),
        ],
    },
    {"dialogue": [turn("Phone?", [("request", [["slot", "phone"], ["slot", "postcode"]])])]},
]
WOZ = {f"woz_{name}_en.json": json.dumps(DIALOGUES) for name in ("train", "validate", "test")}


class TestWoz:
    def test_read(self, tmp_path):
        _, dev, test = read("woz.en", put(tmp_path, WOZ))
        assert [(e.id, e.context, e.answers[0]) for e in dev] == [
            ("dev_en_0_0", "Cheap food?", "price range: cheap;"),
            ("dev_en_0_1", "food, area: north -- Thai, and the address.", "food: thai; address"),
            ("dev_en_0_2", "address -- Indian.", "food: indian;"),
            ("dev_en_0_3", "Bye.", "None"),
            ("dev_en_1_0", "Phone?", "; phone, postcode"),
        ]
        assert all(e.gold == e.answers[0] and e.question == "What is the change in state?" for e in dev)
        assert [e.answers for e in test] == [e.answers for e in dev]

    def test_the_gold_answers_score_in_full(self, tmp_path):
        test = read("woz.en", put(tmp_path, WOZ))[2]
        assert score("woz.en", [e.answers[0] for e in test], test)["joint_goal_em"] == 100
        assert score("woz.en", [""] * len(test), test)["joint_goal_em"] < 100

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[\n{"dialogue": [}]', r"validate_en\.json, line 2: not JSON"),
            ('{"dialogue": []}', r"validate_en\.json: expected a list of dialogues"),
            ('[{"dialogue": [{"transcript": "Hi"}]}]', r"validate_en\.json: dialogue 0, turn 0: no 'belief_state'"),
            (
                json.dumps([{"dialogue": [turn("Hi", [("inform", [["food"]])])]}]),
                r"dialogue 0, turn 0: a slot must be \[name, value\], found \['food'\]",
            ),
            ('[{"dialogue": 3}]', r"dialogue 0: 'dialogue' must be a list, found 3"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        put(tmp_path, WOZ | {"woz_validate_en.json": text})
        with pytest.raises(DataError, match=message):
            read("woz.en", tmp_path)


# --------------------------------------------------------------------------------------------------------------
# QA-SRL


def slots(question: str, answers: str) -> str:
    return "\t".join([*question.split("|"), "?", answers]) + "\n"


BLOCK = (
    "WIKI1_1\t2\n"
    "Tom 's `` old '' dog -LRB- brown -RRB- did n't bark , but it ran .\n"
    "7\tbark\t1\n" + slots("what|did n't|_|bark|_|_|_", "Tom 's `` old '' dog ### the dog")
    + "12\tran\t1\n" + slots("what|_|_|ran|_|_|_", "It")
    + "\n"
)  # fmt: skip
SENTENCE = "Tom's old dog (brown) didn't bark, but it ran."
QASRL = {f"wiki1.{split}.qa": BLOCK for split in ("train", "dev", "test")}


class TestQaSrl:
    def test_read(self, tmp_path):
        train, dev, _ = read("srl", put(tmp_path, QASRL))
        assert train == [
            Example(SENTENCE, "what didn't bark?", ("Tom's old dog", "the dog"), "train_0"),
            Example(SENTENCE, "what ran?", ("it",), "train_1"),  # as the sentence spells it
        ]
        assert dev[1].id == "dev_1"

    def test_as_the_official_conversion(self, tmp_path):
        """The rows that the unmodified conversion made of the published excerpt."""
        rows = json.loads((ROOT / "fixtures" / "lamol" / "encoding.json").read_text())["tasks"]["srl"]["rows"]
        first = (
            "WIKI1_68\t1\nThe brightest star in Serpens , Alpha Serpentis , or Unukalhai , is a red giant of spectral "
            "type K2III located approximately away which marks the snake 's heart .\n24\tmarks\t2\n"
            + slots(
                "what|_|_|marks|something|_|_",
                "The brightest star in Serpens , Alpha Serpentis , or Unukalhai ### The brightest star in Serpens ### "
                "Alpha Serpentis ### Unukalhai",
            )
            + slots("what|does|something|mark|_|_|_", "the snake 's heart")
            + "\n"
        )
        second = (
            "WIKI1_156\t1\nThe Harford County Public Schools system is the public school system serving the residents "
            "of Harford County .\n11\tserving\t2\n"
            + slots(
                "what|is|_|serving|someone|_|_", "the public school system ### The Harford County Public Schools system"
            )
            + slots("who|is|_|being served|_|_|_", "the residents of Harford County")
            + "\n"
        )
        train = read("srl", put(tmp_path, QASRL | {"wiki1.train.qa": first + second}))[0]
        assert texts(train) == [(row["context"], row["question"], tuple(row["answers"])) for row in rows]

    def test_known_slips_of_the_published_answers_are_amended(self):
        assert qasrl._in_sentence("the US army", "It left the US Army.") == "the US Army"
        assert qasrl._in_sentence("nowhere", "It left.") == "nowhere"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("WIKI1_1\n", r"dev\.qa, line 1: expected a sentence's id and its number of verbs"),
            (BLOCK.replace("7\tbark\t1", "7 bark"), r"dev\.qa, line 3: expected a verb's place, itself and its number"),
            (BLOCK.replace("\t?\t", "\t"), r"dev\.qa, line 4: expected seven slots, '\?' and answers .*found 8 fields"),
            (BLOCK.replace("ran\t1", "ran\t2"), r"dev\.qa, line 7: the block ends, but 1 questions should come"),
            (BLOCK.replace("ran\t1", "ran\t2").rstrip("\n"), r"dev\.qa, line 6: the file ends, but 1 questions"),
            (BLOCK.replace("\tIt", "\t### It"), r"dev\.qa, line 6: an answer is empty"),
            ("WIKI1_1\t2\n\n", r"dev\.qa, line 2: the block ends, but its sentence should come"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        put(tmp_path, QASRL | {"wiki1.dev.qa": text})
        with pytest.raises(DataError, match=message):
            read("srl", tmp_path)


GOLD_HEAD = (
    "qasrl_id,verb_idx,verb,worker_id,assign_id,source_assign_id,question,is_redundant,answer_range,answer,wh,subj,obj,"
    "obj2,aux,prep,verb_prefix,is_passive,is_negated,verb_slot_inflection\n"
)


def gold(id: str, answer: str = "Both~!~the others") -> str:
    return f"{id},1,were,w,a,s,Who was shot?,False,0:1,{answer},who,,,,was,,,True,False,Past\n"


class TestQaSrlGold:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        for part in ("wikinews.dev", "wikinews.test", "wikipedia.dev", "wikipedia.test"):
            sentences = f'qasrl_id,tokens,sentence\n{part}:1,x,"Both were shot , sadly ."\n'
            put(tmp_path, {f"{part}.gold.csv": GOLD_HEAD + gold(f"{part}:1"), f"{part}.sentences.csv": sentences})
        return tmp_path

    def test_read(self, folder):
        train, dev, test = read("srl_gs", folder, 0)
        assert train[1] == Example("Both were shot, sadly.", "Who was shot?", ("Both", "the others"), "train_1")
        assert (len(train), len(dev), len(test)) == (2, 1, 1)

    def test_a_question_without_its_sentence(self, folder):
        put(folder, {"wikinews.test.gold.csv": GOLD_HEAD + gold("wikinews.test:1") + gold("elsewhere:1")})
        with pytest.raises(DataError, match=r"wikinews\.test\.gold\.csv, line 3: elsewhere:1 is no sentence of"):
            read("srl_gs", folder, 0)

    def test_an_empty_answer(self, folder):
        put(folder, {"wikinews.test.gold.csv": GOLD_HEAD + gold("wikinews.test:1", "")})
        with pytest.raises(DataError, match=r"wikinews\.test\.gold\.csv, line 2: an answer is empty"):
            read("srl_gs", folder, 0)


# --------------------------------------------------------------------------------------------------------------
# Winograd schemas


def schemas(count: int) -> str:
    block = "The cup fell off the shelf {i} because it was [wet/steep]. \nWhat was [wet/steep]? \ncup/shelf\n\n"
    return "".join(block.format(i=i) for i in range(count))


class TestSchema:
    def test_read(self, tmp_path):
        text = schemas(130) + schemas(1).rstrip("\n") + "\n"  # the last has no empty line after it: it does not count
        train, dev, test = read("schema", put(tmp_path, {"schema.txt": text}))
        assert (len(train), len(dev), len(test)) == (80, 80, 100)
        assert texts(train[:2]) == [
            ("The cup fell off the shelf 0 because it was wet.", "What was wet? cup or shelf?", ("cup",)),
            ("The cup fell off the shelf 0 because it was steep.", "What was steep? cup or shelf?", ("shelf",)),
        ]
        assert test[-1].context.startswith("The cup fell off the shelf 129")

    def test_two_choices_in_a_sentence_are_cut_as_published(self, tmp_path):
        text = "Her [a/b] had been [c/d] by one.\nWhose?\nx/y\n\n" + schemas(120)
        train = read("schema", put(tmp_path, {"schema.txt": text}))[0]
        assert [e.context for e in train[:2]] == ["Her a by one.", "Her b] had been [c by one."]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("A [b/c].\nd\n\n", r"schema\.txt, line 3: a schema of 2 lines ends here"),
            ("A [b/c].\nd\ne\n\n", r"schema\.txt, line 3: expected two answers with / between them, found e"),
            ("A [b].\nd\ne/f\n\n", r"schema\.txt, line 4: .* no / between its choices: \[b\]"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        with pytest.raises(DataError, match=message):
            read("schema", put(tmp_path, {"schema.txt": text}))


# --------------------------------------------------------------------------------------------------------------
# Text classification


CSV = {
    "ag": ('"3","Wall St.","Shares\\fell, ""badly"""\n', "Wall St. Shares\\fell, \"badly\"", "Business"),
    "amazon": ('"5","Good","Very\\ngood"\n', "Good Very good", "very positive"),
    "dbpedia": ('2,"A School"," It is a school."\n', "A School It is a school.", "EducationalInstitution"),
    "yahoo": ('"10","Who?","","The \\""mayor\\""."\n', 'Who? The "mayor".', "Politics & Government"),
    "yelp": ('"1","Never\\n\\nagain."\n', "Never again.", "very negative"),
}  # fmt: skip


class TestClassification:
    @pytest.mark.parametrize("task", CSV)
    def test_the_published_tables(self, tmp_path, task):
        row, context, answer = CSV[task]
        train, dev, test = read(task, put(tmp_path, {"train.csv": row * 2, "test.csv": row}))
        assert (train[1].context, train[1].answers) == (context, (answer,))
        assert dev is test
        assert len(test) == 1
        assert answer in train[0].question

    def test_the_question_is_lamols(self, tmp_path):
        assert classification.TABLES["ag"].question == "Is this sentence World, Sports, Business, or Sci/Tech?"
        assert classification.TABLES["dbpedia"].question.endswith("Album, Film, or WrittenWork?")

    def test_in_the_archive(self, tmp_path):
        row, context, _ = CSV["yelp"]
        folder = {"yelp_review_full_csv/train.csv": row, "yelp_review_full_csv/test.csv": row, "x/readme.txt": b"\xff"}
        put(tmp_path, {"yelp_review_full_csv.tgz": packed(folder, "w:gz")})
        assert read("yelp", tmp_path, 2)[0][0].context == context

    def test_a_torn_archive(self, tmp_path):
        whole = packed({"a/train.csv": "x" * 99_999, "a/test.csv": "x"}, "w:gz")
        put(tmp_path, {"yelp_review_full_csv.tgz": whole[: len(whole) // 2]})
        with pytest.raises(DataError, match=r"yelp_review_full_csv\.tgz: torn or foreign: "):
            read("yelp", tmp_path, 2)

    def test_an_archive_that_lacks_a_file(self, tmp_path):
        put(tmp_path, {"yelp_review_full_csv.tgz": packed({"a/test.csv": CSV["yelp"][0]}, "w:gz")})
        with pytest.raises(DataError, match=r"yelp_review_full_csv\.tgz: it holds no train\.csv"):
            read("yelp", tmp_path, 2)

    def test_so_many_are_drawn_in_the_files_order(self, tmp_path, monkeypatch):
        monkeypatch.setattr(classification, "TRAIN", 30)
        rows = "".join(f'"1","number {i}"\n' for i in range(100))
        train, _, test = read("yelp", put(tmp_path, {"train.csv": rows, "test.csv": rows}))
        numbers = [int(e.context.removeprefix("number ")) for e in train]
        assert (len(numbers), len(test)) == (30, 100)
        assert numbers == sorted(set(numbers))
        assert numbers != list(range(30))
        assert [e.id for e in train] == [f"train_{n}" for n in numbers]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('"1","a","b"\n"5","a","b"\n', r"train\.csv, line 2: class '5', expected 1 to 4"),
            ('"one","a","b"\n', r"train\.csv, line 1: class 'one', expected 1 to 4"),
            ('"1","a","b\nc"\n"1","a"\n', r"train\.csv, line 3: 2 fields, expected 3: class, title, description"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        with pytest.raises(DataError, match=message):
            read("ag", put(tmp_path, {"train.csv": text, "test.csv": CSV["ag"][0]}))

    def test_o_loras_samples(self, tmp_path):
        items = [
            {"label": "Science or Technology", "sentence": "Title: Moon\nText: A rocket flew.\n"},
            {"label": "World", "sentence": "Text: News."},
        ]
        put(tmp_path, {"TC_agnews_train.json": json.dumps(items), "TC_agnews_test.json": json.dumps(items[1:])})
        train, dev, test = read("ag", tmp_path, 2)
        assert texts(train)[0] == (
            "Moon A rocket flew.", "Is this sentence World, Sports, Business, or Sci/Tech?", ("Sci/Tech",)
        )  # fmt: skip
        assert dev is test
        assert test[0].context == "News."

    def test_one_of_o_loras_samples_is_cut(self, tmp_path):
        items = [{"label": "Mean Of transportation", "sentence": f"Text: {i}"} for i in range(10)]
        train, _, test = read("dbpedia", put(tmp_path, {"TC_dbpedia_test.json": json.dumps(items)}), 3)
        assert [e.context for e in test] == ["4", "9"]
        assert len(train) == 8
        assert train[0].answers == ("MeanOfTransportation",)

    def test_a_label_of_another_task(self, tmp_path):
        put(tmp_path, {"TC_dbpedia_test.json": json.dumps([{"label": "Sports", "sentence": "x"}])})
        with pytest.raises(
            DataError, match=r"TC_dbpedia_test\.json: example 0: label 'Sports', expected one of Company"
        ):
            read("dbpedia", tmp_path, 3)


# --------------------------------------------------------------------------------------------------------------
# SQuAD, and LAMOL's own files in its form


def squad(*asked: dict[str, Any]) -> str:
    return json.dumps(
        {"version": "x", "data": [{"title": "t", "paragraphs": [{"context": "The sea.", "qas": list(asked)}]}]}
    )


def ask(id: Any, *answers: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "question": f"What is {id}?",
        "answers": [{"text": a, "answer_start": 0} for a in answers],
        **more,
    }


class TestSquad:
    def test_version_1(self, tmp_path):
        put(
            tmp_path,
            {"train-v1.1.json": squad(ask("a", "sea")), "dev-v1.1.json": squad(ask("b", "sea", "The sea", "sea"))},
        )
        train, dev, test = read("squad1", tmp_path)
        assert train == [Example("The sea.", "What is a?", ("sea",), "a")]
        assert test[0].answers == ("sea", "The sea", "sea")
        assert dev is test

    def test_no_answer_is_an_empty_one(self, tmp_path):
        text = squad(ask("a", "sea", is_impossible=False), ask("b", is_impossible=True))
        train = read("squad2", put(tmp_path, {"train-v2.0.json": text, "dev-v2.0.json": text}))[0]
        assert [e.answers for e in train] == [("sea",), ("",)]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"data":\n [}', r"train-v2\.0\.json, line 2: not JSON"),
            ('{"dat": []}', r"train-v2\.0\.json: no 'data'"),
            (squad(ask("a")), r"data\[0\]\.paragraphs\[0\]\.qas\[0\]: no answers, and is_impossible does not say so"),
            ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\]\.paragraphs\[0\]: no 'context'"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        with pytest.raises(DataError, match=message):
            read("squad2", put(tmp_path, {"train-v2.0.json": text, "dev-v2.0.json": text}))


class TestOfficial:
    @pytest.mark.parametrize("task", sorted(set(PUBLISHED) - {"woz.en", "wikisql", "srl_gs"}))
    def test_every_task_of_lamol(self, tmp_path, task):
        if task.startswith("scan."):
            assert PUBLISHED[task].forms == ()
            return
        form = PUBLISHED[task].forms[0]
        train, dev, test = read(task, put(tmp_path, dict.fromkeys(form.files, squad(ask(1, "a", "b"), ask(0, "c")))), 0)
        assert train[0] == Example("The sea.", "What is 1?", ("a", "b"), "train_0")
        assert (dev is test) == (len(form.files) == 2)

    def test_the_files_names_are_lamols(self):
        assert list(official.form("srl").files) == [f"srl_to_squad-{s}-v2.0.json" for s in ("train", "dev", "test")]
        assert list(official.form("ag").files) == ["ag_to_squad-train-v2.0.json", "ag_to_squad-test-v2.0.json"]
        assert list(official.form("squad1").files) == ["squad-train-v1.1.json", "squad-dev-v1.1.json"]
        assert list(official.form("multinli.in.out").files)[1] == "multinli.in.out_to_squad-dev-v2.0.json"

    @pytest.fixture
    def woz(self, tmp_path) -> Path:
        files = {
            f"woz.en_to_squad-{s}-v2.0.json": squad(ask(10, "None"), ask(2, "food: thai;"))
            for s in ("train", "dev", "test")
        }
        answers = [["en_0_0", "food: thai;"], ["en_0_1", "None"]]
        return put(tmp_path, {**files, "woz.en_answers.json": json.dumps(answers)})

    def test_dialogues_are_in_the_order_of_their_turns(self, woz):
        train, _, test = read("woz.en", woz, 0)
        assert [(e.id, e.gold, e.answers) for e in test] == [
            ("test_en_0_0", "food: thai;", ("food: thai;",)),
            ("test_en_0_1", "None", ("None",)),
        ]
        assert [(e.id, e.gold) for e in train] == [("train_2", "food: thai;"), ("train_10", "None")]

    def test_an_answer_too_few(self, woz):
        put(woz, {"woz.en_answers.json": '[["en_0_0", "None"]]'})
        with pytest.raises(
            DataError, match=r"woz\.en_answers\.json: 1 entries for 2 examples of woz\.en_to_squad-test"
        ):
            read("woz.en", woz, 0)

    def test_an_answer_of_another_form(self, woz):
        put(woz, {"woz.en_answers.json": '["None", "None"]'})
        with pytest.raises(DataError, match=r"woz\.en_answers\.json: entry 0 must be \[turn, answer\], found 'None'"):
            read("woz.en", woz, 0)

    def test_examples_without_ids_cannot_be_ordered(self, woz):
        put(woz, {"woz.en_to_squad-train-v2.0.json": squad(ask(None, "None"))})
        with pytest.raises(DataError, match=r"train-v2\.0\.json: an id is missing"):
            read("woz.en", woz, 0)

    def test_queries(self, tmp_path):
        sql = {"sel": 0, "agg": 0, "conds": [[1, 0, "2"]]}
        answer = {
            "sql": sql,
            "header": ["A", "B"],
            "answer": "SELECT A",
            "table": {"header": ["A", "B"], "id": "7", "rows": [1]},
        }
        files = {f"wikisql_to_squad-{s}-v2.0.json": squad(ask(0, "SELECT A")) for s in ("train", "dev", "test")}
        train, _, test = read("wikisql", put(tmp_path, {**files, "wikisql_answers.json": json.dumps([answer])}), 0)
        assert test[0].gold == {**answer, "table": {"header": ["A", "B"], "id": "7"}}
        assert train[0].gold is None
        put(tmp_path, {"wikisql_answers.json": '[{"sql": {}}]'})
        with pytest.raises(DataError, match=r"wikisql_answers\.json: entry 0: no 'header'"):
            read("wikisql", tmp_path, 0)


# --------------------------------------------------------------------------------------------------------------
# WikiSQL, QA-ZRE, MultiNLI, IWSLT, CNN/Daily Mail


TABLE = {"id": "1-1", "header": ["Player", "No.", "Years"], "rows": [["x", 1, 2]], "types": ["text", "real", "real"]}
QUERY = {
    "table_id": "1-1",
    "question": "Which  No.?",
    "sql": {"sel": 1, "agg": 1, "conds": [[2, 1, 1995], [0, 0, "Amir J"]]},
}
PLAIN = {"table_id": "1-1", "question": "Who?", "sql": {"sel": 0, "agg": 0, "conds": []}}
WIKISQL = {
    f"{split}{kind}.jsonl": text
    for split in ("train", "dev", "test")
    for kind, text in (("", lines(QUERY, PLAIN)), (".tables", lines(TABLE)))
}


class TestWikiSql:
    def test_read(self, tmp_path):
        train, _, test = read("wikisql", put(tmp_path, WIKISQL), 2)
        assert train[0] == Example(
            "The table has columns Player, No., Years and key words MAX, MIN, COUNT, SUM, AVG, =, >, <, OP, SELECT, "
            "WHERE, AND, COL, TABLE, CAPTION, PAGE, SECTION, OP, COND, QUESTION, AGG, AGGOPS, CONDOPS-- Which  No.?",
            "What is the translation from English to SQL?",
            ("SELECT MAX No. FROM table WHERE Years > 1995 AND Player = Amir J",),
            "train_0",
            {
                "sql": QUERY["sql"],
                "header": TABLE["header"],
                "answer": "SELECT MAX No. FROM table WHERE Years > 1995 AND Player = Amir J",
                "table": {"header": TABLE["header"], "id": "1-1"},
            },
        )
        assert test[1].answers == ("SELECT Player FROM table",)

    def test_in_the_archive(self, tmp_path):
        raw = packed({f"data/{name}": text for name, text in WIKISQL.items()} | {"data/train.db": b"\xff"}, "w:bz2")
        whole = read("wikisql", put(tmp_path, {"data.tar.bz2": raw}), 1)
        assert whole == read("wikisql", put(tmp_path / "data", WIKISQL).parent, 2)

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({**QUERY, "table_id": "2"}, r"dev\.jsonl, line 2: table 2 is not in dev\.tables\.jsonl"),
            (
                {**QUERY, "sql": {"sel": 9, "agg": 0, "conds": []}},
                r"dev\.jsonl, line 2: 'sql' must have sel, agg and conds",
            ),
            ({**QUERY, "sql": {"sel": 0}}, r"dev\.jsonl, line 2: 'sql' must have sel, agg and conds"),
            ([], r"dev\.jsonl, line 2: expected an object"),
            ({"table_id": "1-1", "question": "Who?"}, r"dev\.jsonl, line 2: no 'sql'"),
        ],
    )
    def test_bad_files(self, tmp_path, query, message):
        with pytest.raises(DataError, match=message):
            read("wikisql", put(tmp_path, WIKISQL | {"dev.jsonl": lines(PLAIN, query)}), 2)


ZRE = (
    "educated at\tWhere did XXX study?\tTuring\tTuring studied at King's.\tKing's\tCambridge\n"
    "place\tWhere is XXX?\tIt\tNo.\n"
)


class TestZre:
    def test_read(self, tmp_path):
        train, _, test = read("zre", put(tmp_path, dict.fromkeys(("train.0", "dev.0", "test.0"), ZRE)), 2)
        assert texts(train) == [
            ("Turing studied at King's.", "Where did Turing study?", ("King's, Cambridge",)),
            ("No.", "Where is It?", ("Unanswerable",)),
        ]
        assert test[1].id == "test_1"

    def test_in_the_archive(self, tmp_path):
        names = (f"relation_splits/{split}.{i}" for split in ("train", "dev", "test") for i in (0, 1))
        raw = packed({name: ZRE if name.endswith("0") else "torn" for name in names}, "w:bz2")
        assert len(read("zre", put(tmp_path, {"relation_splits.tar.bz2": raw}), 1)[2]) == 2

    def test_a_line_with_too_little(self, tmp_path):
        put(tmp_path, {"train.0": ZRE, "dev.0": ZRE + "a\tb\n", "test.0": ZRE})
        with pytest.raises(DataError, match=r"dev\.0, line 3: 2 fields between tabs, expected relation, question"):
            read("zre", tmp_path, 2)


def pair(premise: str, label: str) -> dict[str, str]:
    return {"sentence1": premise, "sentence2": "It rains.", "gold_label": label, "genre": "x"}


MULTINLI = {
    "multinli_1.0_train.jsonl": lines(pair("Wet.", "neutral")),
    "multinli_1.0_dev_matched.jsonl": lines(pair("In.", "entailment"), pair("Split.", "-")),
    "multinli_1.0_dev_mismatched.jsonl": lines(pair("Out.", "contradiction")),
}


class TestMultiNli:
    def test_read(self, tmp_path):
        train, dev, test = read("multinli.in.out", put(tmp_path, MULTINLI), 2)
        question = 'Hypothesis: "It rains." -- entailment, neutral, or contradiction?'
        assert train == [Example('Premise: "Wet."', question, ("neutral",), "train_0")]
        assert [e.answers[0] for e in test] == ["entailment", "-", "contradiction"]
        assert dev is test

    def test_in_the_archive(self, tmp_path):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name, text in MULTINLI.items():
                archive.writestr(f"multinli_1.0/{name}", text)
                archive.writestr(f"__MACOSX/multinli_1.0/._{name}", b"\xff")
        whole = read("multinli.in.out", put(tmp_path, {"multinli_1.0.zip": made.getvalue()}), 1)
        assert [len(examples) for examples in whole] == [1, 3, 3]
        put(tmp_path, {"multinli_1.0.zip": made.getvalue()[:-30]})
        with pytest.raises(DataError, match=r"multinli_1\.0\.zip: torn or foreign: "):
            read("multinli.in.out", tmp_path, 1)

    def test_an_unknown_label(self, tmp_path):
        put(tmp_path, MULTINLI | {"multinli_1.0_train.jsonl": lines(pair("Wet.", "neutral"), pair("Dry.", "maybe"))})
        with pytest.raises(DataError, match=r"train\.jsonl, line 2: gold_label 'maybe', expected one of entailment"):
            read("multinli.in.out", tmp_path, 2)


def talks(*sentences: str) -> str:
    inside = "".join(f'<seg id="{i}"> {s} </seg>\n' for i, s in enumerate(sentences, 1))
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<mteval><srcset><doc docid="1"><title>No</title>\n'
    return f"{head}{inside}</doc></srcset></mteval>\n"


IWSLT = {
    "train.tags.en-de.en": "<url>http://x</url>\n<title>Talk</title>\n Thank you. \nAlone.\n\u2028Odd end\n",
    "train.tags.en-de.de": "<url>http://x</url>\n<title>Rede</title>\n Danke. \n\nSeltsames Ende\n",
    **{
        f"IWSLT16.TED.tst{year}.en-de.{language}.xml": text
        for year in (2013, 2014)
        for language, text in (("en", talks("Tea &amp; milk", "Bye")), ("de", talks("Tee &amp; Milch", "Tschüss")))
    },
}


class TestIwslt:
    def test_read(self, tmp_path):
        train, dev, test = read("iwslt.en.de", put(tmp_path / "en-de", IWSLT).parent, 1)
        assert texts(train) == [
            ("Thank you.", "Translate from English to German", ("Danke.",)),
            ("Odd end", "Translate from English to German", ("Seltsames Ende",)),
        ]
        assert [(e.context, e.answers[0]) for e in dev] == [("Tea & milk", "Tee & Milch"), ("Bye", "Tschüss")]
        assert [e.id for e in test] == ["test_0", "test_1"]

    def test_in_the_archive(self, tmp_path):
        raw = packed({f"en-de/{name}": text for name, text in IWSLT.items()}, "w:gz")
        assert len(read("iwslt.en.de", put(tmp_path, {"en-de.tgz": raw}), 2)[0]) == 2

    def test_a_sentence_too_few(self, tmp_path):
        put(tmp_path, IWSLT | {"train.tags.en-de.de": "Danke.\n"})
        with pytest.raises(DataError, match=r"train\.tags\.en-de\.en has 3 sentences, train\.tags\.en-de\.de has 1"):
            read("iwslt.en.de", tmp_path, 1)

    def test_torn_xml(self, tmp_path):
        put(tmp_path, IWSLT | {"IWSLT16.TED.tst2013.en-de.de.xml": talks("a", "b")[:-40]})
        with pytest.raises(DataError, match=r"tst2013\.en-de\.de\.xml, line \d: not XML"):
            read("iwslt.en.de", tmp_path, 1)


STORY = "(CNN) It rained\n\nAll day .\n\n@highlight\n\nRain\n\n@highlight\n\nMore “rain”\n"


def named(url: str) -> str:
    return hashlib.sha1(url.encode()).hexdigest() + ".story"


class TestCnnDailyMail:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        for paper in ("cnn", "dailymail"):
            urls = {name: f"http://{paper}/{name}" for name in ("training", "validation", "test")}
            put(tmp_path, {f"{paper}_wayback_{name}_urls.txt": f"{url}\n" for name, url in urls.items()})
            stories = {f"{paper}/stories/{named(url)}": STORY.replace("rained", paper) for url in urls.values()}
            put(
                tmp_path, {f"{paper}_stories.tgz": packed({**stories, f"{paper}/stories/other.story": b"\xff"}, "w:gz")}
            )
        return tmp_path

    def test_read(self, folder):
        train, dev, test = read("cnn_dailymail", folder)
        assert train == [
            Example("(CNN) It cnn. All day .", "What is the summary?", ("Rain. More “rain”",), "train_0"),
            Example("(CNN) It dailymail. All day .", "What is the summary?", ("Rain. More “rain”",), "train_1"),
        ]
        assert (len(dev), len(test)) == (2, 2)

    def test_a_listed_story_is_missing(self, folder):
        put(folder, {"cnn_wayback_test_urls.txt": "http://cnn/test\nhttp://cnn/gone\n"})
        with pytest.raises(
            DataError, match=rf"cnn_stories\.tgz: 1 listed stories are not in it, {named('http://cnn/gone')}"
        ):
            read("cnn_dailymail", folder)

    def test_a_highlight_within_a_line(self, folder):
        story = {
            f"cnn/stories/{named(f'http://cnn/{n}')}": "One\n\nand @highlight two\n"
            for n in ("training", "validation", "test")
        }
        put(folder, {"cnn_stories.tgz": packed(story, "w:gz")})
        with pytest.raises(DataError, match=r"\.story, line 3: @highlight within a line"):
            read("cnn_dailymail", folder)

    def test_both_papers_are_wanted(self):
        assert len(PUBLISHED["cnn_dailymail"].forms[1].files) == 8
        assert cnn_dailymail.QUESTION == "What is the summary?"
