"""YAML read by stricter rules than YAML's own: limits, keys, values, places; with libyaml and without it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from clray.documents import (
    LOADERS,
    Document,
    PythonLoader,
    Wrong,
    compose,
    construct,
    misread,
    one_of,
    read_value,
    shorter,
    shown,
)
from clray.errors import DeclarationError
from clray.loading import declared_root

SHIPPED = sorted([*declared_root().glob("sweeps/*/*.yaml"), *declared_root().glob("reproduce/*.yaml")])
loaders = pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.__name__)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path) -> str:
    with pytest.raises(DeclarationError) as caught:
        Document(path)
    return str(caught.value)


class TestLoaders:
    def test_libyaml_is_used_where_it_is(self):
        assert [loader.__name__ for loader in LOADERS] == [
            "PythonLoader",
            *(["CLoader"] if yaml.__with_libyaml__ else []),
        ]

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
    def test_all_give_what_yaml_gives(self, path):
        text = path.read_text(encoding="utf-8")
        safe = type("Safe", (yaml.SafeLoader,), {"yaml_implicit_resolvers": PythonLoader.yaml_implicit_resolvers})
        expected = yaml.load(text, safe)
        lines = []
        for loader in LOADERS:
            root = compose(text, loader)
            assert construct(root) == expected
            lines.append(list(walk(root)))
        assert all(found == lines[0] for found in lines)

    @loaders
    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("a: 1\nb: 2\na: 3", 3, "'a' stands twice"),
            ("a:\n  no: 1", 2, "the key 'no' is read as yes or no, not as a text: put it in quotes: \"no\""),
            ("a:\n  1: 1", 2, "the key '1' is read as a whole number, not as a text: put it in quotes: \"1\""),
            ("on: 1", 1, 'put it in quotes: "on"'),
            ("~: 1", 1, "read as nothing"),
            ("2001-01-01: 1", 1, "read as a date"),
            ("a: 1\n? [a]\n: 1", 2, "a list stands where a key is expected"),
            ("? {a: 1}\n: 1", 1, "a mapping stands where a key is expected"),
            ("b: 1\n<<: {a: 1}", 2, "the key <<"),
            ("a: 1\nb: .inf", 2, "'.inf' is not a finite number"),
            ("b: [1, -.INF]", 1, "not a finite number"),
            ("b: .nan", 1, "not a finite number"),
            ("b: 1e400", 1, "'1e400' is not a finite number"),
            ("a: 2001-02-03", 1, "is read as a date: put it in quotes"),
            ("a: 2001-99-99", 1, "is read as a date: put it in quotes"),
            ("a: 0x_", 1, "is not a whole number: put it in quotes"),
            ("a: !!int x", 1, "is not a whole number"),
            (f"a: {'9' * 5000}", 1, "is not a whole number"),
            ("a: !!python/object/apply:os.system [ls]", 1, "is not allowed"),
            ("a: !!python/name:os.system x", 1, "is not allowed"),
            ("a: !!set {b}", 1, "is not allowed"),
            ("a: !!binary aGk=", 1, "is not allowed"),
            ('a: "\\0"', 1, "the control character U+0000"),
            ('a: "\\e[31m"', 1, "the control character U+001B"),
            ("a: 1\nb: \x07", 2, "the character U+0007 is not allowed"),
            ("a: *b", 1, "undefined alias"),
            ("a: &a [1, *a]", 1, "*a is inside the value that it names"),
            ("a: &a {b: {c: *a}}", 1, "*a is inside the value that it names"),
            ("a: 1\n---\nb: 1", 2, "another document"),
            ("a: [1", None, "not valid YAML"),
            ("a: " + "[" * 3000, 1, "more than 40 times"),
            ("".join("\n" + " " * i + "a:" for i in range(3000)), None, "more than 40 times"),
            ("a: " + "{a: " * 50 + "1" + "}" * 50, 1, "more than 40 times"),
        ],
        ids=lambda value: repr(value)[:30],
    )  # fmt: skip
    def test_each_refuses_the_same_with_the_line(self, loader, text, line, said):
        with pytest.raises(Wrong) as caught:
            construct(compose(text, loader))
        assert said in str(caught.value)
        assert len(str(caught.value)) < 300
        if line:
            assert caught.value.line == line

    @loaders
    def test_anchors_that_multiply(self, loader):
        names = "abcdefghijkl"
        text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        text += "".join(f"{n}: &{n} [{', '.join(['*' + last] * 10)}]\n" for last, n in itertools.pairwise(names))
        with pytest.raises(Wrong, match="more than 50,000 keys and values, those of aliases included"):
            construct(compose(text, loader))

    @loaders
    def test_a_long_text_that_aliases_multiply(self, loader):
        text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n"
        with pytest.raises(Wrong, match="more than 50,000"):
            construct(compose(text, loader))

    @loaders
    def test_aliases_may_be_used(self, loader):
        root = compose("a: &short {lr: 1e-3, hidden: [1, 2]}\nb: *short\nc: [*short, *short]", loader)
        data = construct(root)
        assert data["b"] == data["a"] == data["c"][1] == {"lr": 0.001, "hidden": [1, 2]}
        data["a"]["lr"] = 5
        assert data["b"]["lr"] == 0.001, "each place has a value of its own"

    @loaders
    @pytest.mark.parametrize(
        "text", ["a: &x 1\nb: *x", "a: 'no'", 'a: "1e400"', "a: é日本\U0001f600", "a: |\n  b\n  c\n"]
    )
    def test_what_is_allowed(self, loader, text):
        assert construct(compose(text, loader)) == yaml.safe_load(text)


def walk(node):
    """Tags, values and lines of all nodes, in order."""
    if isinstance(node, tuple):
        yield from (part for inner in node for part in walk(inner))
    elif isinstance(node, yaml.ScalarNode):
        yield node.tag, node.value, node.start_mark.line
    else:
        yield node.tag, node.start_mark.line
        for inner in node.value:
            yield from walk(inner)


class TestFiles:
    def test_twenty_thousand_variants(self, tmp_path):
        path = write(tmp_path, "variants:\n" + "".join(f"  v{i}: {{method: online, lr: 0.1}}\n" for i in range(20_000)))
        assert "more than 50,000 keys and values" in refused(path)

    def test_a_huge_file_is_not_read(self, tmp_path):
        path = tmp_path / "file.yaml"
        with path.open("wb") as file:
            file.truncate(10**12)
        assert refused(path) == f"{path}: it has 953,674.3 MiB; a declaration has at most 2 MiB"

    def test_a_folder(self, tmp_path):
        assert refused(tmp_path) == f"{tmp_path}: cannot be read: it is a folder; expected a YAML file"

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "it is a pipe or a device" in refused(tmp_path / "pipe")

    @pytest.mark.parametrize("name", ["no", "a" * 5000, "nul\0", "a/b/c"])
    def test_what_is_not_there(self, tmp_path, name):
        said = refused(tmp_path / name)
        assert "cannot be read" in said
        assert said.isprintable()
        assert len(said) < 400

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
    def test_a_closed_file(self, tmp_path):
        path = write(tmp_path, "a: 1")
        path.chmod(0)
        assert refused(path) == f"{path}: cannot be read: Permission denied"

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG\r\n", bytes(range(256)), "a: é".encode("utf-16")])
    def test_what_is_no_text(self, tmp_path, content):
        path = write(tmp_path, content)
        assert refused(path).startswith(f"{path}")

    def test_a_byte_order_mark_and_the_line_ends_of_others(self, tmp_path):
        assert Document(write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")).data == {"a": 1, "b": 2}

    def test_a_file_is_parsed_once_until_it_changes(self, tmp_path):
        path = write(tmp_path, "a: 1")
        first = Document(path)
        assert Document(path).data is first.data
        write(tmp_path, "a: 22")
        assert Document(path).data == {"a": 22}

    def test_places(self, tmp_path):
        path = write(tmp_path, "a: 1\nb:\n  c: [1,\n    2]\n")
        document = Document(path)
        assert document.place(["b", "c", 1]) == f"{path}:4: b.c.1"
        assert document.place(["b", "d"]) == f"{path}:2: b.d"
        assert document.place([]) == str(path)
        assert document.has(["b", "c", 1])
        assert not document.has(["b", "c", 2])
        assert not document.has(["b", "d"])


class TestMisread:
    class Settings(BaseModel):
        rate: float = 1.0
        count: int | None = 1
        flag: bool = False
        rates: list[float] = []
        inner: dict[str, float] = {}

    @pytest.mark.parametrize(
        ("given", "keys", "said"),
        [
            ({"rate": True}, ("rate",), "expected a number (it is True)"),
            ({"count": False}, ("count",), "expected a number"),
            ({"flag": 1}, ("flag",), "expected true or false (it is 1)"),
            ({"flag": "yes"}, ("flag",), "expected true or false"),
            ({"rate": "inf"}, ("rate",), "expected a finite number"),
            ({"rate": "nan"}, ("rate",), "expected a finite number"),
            ({"rate": float("inf")}, ("rate",), "expected a finite number"),
            ({"rates": [1, "-inf"]}, ("rates", 1), "expected a finite number"),
            ({"rates": [1, True]}, ("rates", 1), "expected a number"),
            ({"inner": {"a": True}}, ("inner", "a"), "expected a number"),
            ({"count": 2**63}, ("count",), "at most 64 bits"),
            ({"count": 10**3000}, ("count",), "a whole number of 9966 bits"),
        ],
    )
    def test_what_pydantic_takes_for_something_else(self, given, keys, said):
        [(found, problem)] = misread(given, self.Settings(**given).model_dump())
        assert found == keys
        assert said in problem

    @pytest.mark.parametrize(
        "given",
        [{}, {"rate": 1}, {"flag": True}, {"count": None}, {"rates": [1, 0.5]}, {"count": -(2**63)}, {"rate": "0.5"}],
    )
    def test_what_is_right(self, given):
        assert list(misread(given, self.Settings(**given).model_dump())) == []


def test_a_value_of_a_flag_has_the_same_rules():
    assert read_value("[1e-3, no]") == [0.001, False]
    for text in ("{no: 1}", "[" * 3000, "&a [*a]", ".inf", "!!set {a}", "a" * 3_000_000, '"\\0"'):
        with pytest.raises(Wrong):
            read_value(text)


def test_what_is_long_is_cut():
    assert len(shown("a" * 5000)) == 80
    assert shown(10**4999).startswith("a whole number of")
    assert len(shorter("a" * 5000)) == 200
    assert shorter("a\x1bb\nc") == "a\\x1bb\\nc"
    assert "and 800 more" in one_of("x" * 5000, [f"v{i}" for i in range(1000)])
