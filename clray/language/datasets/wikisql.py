"""WikiSQL 1.1 (Zhong, Xiong and Socher 2017): a question about a table, answered by a query; texts as in decaNLP."""

from __future__ import annotations

from typing import Any

from clray.language.datasets.files import Files, Text, field
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

QUESTION = "What is the translation from English to SQL?"
AGGREGATIONS = ("", "MAX", "MIN", "COUNT", "SUM", "AVG")
CONDITIONS = ("=", ">", "<", "OP")
_SYMBOLS = (
    "SELECT", "WHERE", "AND", "COL", "TABLE", "CAPTION", "PAGE", "SECTION", "OP", "COND", "QUESTION", "AGG", "AGGOPS",
    "CONDOPS",
)  # fmt: skip
_KEY_WORDS = ", ".join((*AGGREGATIONS[1:], *CONDITIONS, *_SYMBOLS))


def read(files: Files) -> Splits:
    train, dev, test = (_examples(files, split) for split in ("train", "dev", "test"))
    return train, dev, test


def _examples(files: Files, split: str) -> list[Example]:
    text = files.text(f"{split}.tables.jsonl")
    headers = {
        field(table, "id", str, f"{text.where}, line {line}"): field(
            table, "header", list, f"{text.where}, line {line}"
        )
        for line, table in text.json_lines()
    }
    text = files.text(f"{split}.jsonl")
    examples: list[Example] = []
    for line, asked in text.json_lines():
        where = f"{text.where}, line {line}"
        table = field(asked, "table_id", str, where)
        if table not in headers:
            raise text.bad(line, f"table {table} is not in {split}.tables.jsonl")
        header, sql = headers[table], field(asked, "sql", dict, where)
        answer = _query(text, line, sql, header)
        question = field(asked, "question", str, where)
        context = f"The table has columns {', '.join(header)} and key words {_KEY_WORDS}-- {question}"
        gold = {"sql": sql, "header": header, "answer": answer, "table": {"header": header, "id": table}}
        examples.append(Example(context, QUESTION, (answer,), f"{split}_{len(examples)}", gold))
    return examples


def _query(text: Text, line: int, sql: dict[str, Any], header: list[str]) -> str:
    """The query as text: ``SELECT <aggregation> <column> FROM table WHERE <column> <condition> <value> AND …``."""
    try:
        words = ["SELECT", AGGREGATIONS[sql["agg"]], header[sql["sel"]], "FROM table"]
        wheres = [f"{header[column]} {CONDITIONS[condition]} {value}" for column, condition, value in sql["conds"]]
    except (KeyError, IndexError, TypeError, ValueError):
        raise text.bad(line, "'sql' must have sel, agg and conds that fit the table") from None
    if wheres:
        words += ["WHERE", " AND ".join(wheres)]
    return " ".join(" ".join(words).split())


_MEMBERS = tuple(f"{split}{kind}.jsonl" for split in ("train", "dev", "test") for kind in ("", ".tables"))

WIKISQL = Published(
    origin="https://github.com/salesforce/WikiSQL",
    forms=(
        Form(
            "wikisql",
            {"data.tar.bz2": "755c728ab188e364575705c8641f3fafd86fb089cb8b08e8c03f01832aae0881"},
            read,
            members=_MEMBERS,
            addresses={"data.tar.bz2": "https://github.com/salesforce/WikiSQL/raw/master/data.tar.bz2"},
        ),
        Form("wikisql", dict.fromkeys(_MEMBERS), read, inner="data"),
    ),
)
