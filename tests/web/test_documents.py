"""JSON documents as lines."""

import json
from typing import Any

import pytest

from oban.web.documents import CHARACTERS, TEXT, VALUES, document


def test_a_small_document_is_shown_whole_and_can_be_copied() -> None:
    made = document({"to": "ada", "tries": [1, 2.5, None, True], "none": {}})
    assert [(line.part, line.key, line.text) for line in made.lines] == [
        ("start", None, "{"),
        ("value", "to", '"ada"'),
        ("start", "tries", "["),
        ("value", None, "1"),
        ("value", None, "2.5"),
        ("value", None, "null"),
        ("value", None, "true"),
        ("end", None, "]"),
        ("value", "none", "{}"),
        ("end", None, "}"),
    ]
    assert json.loads(made.source or "") == {"to": "ada", "tries": [1, 2.5, None, True], "none": {}}


def test_containers_have_paths_of_their_own() -> None:
    paths = [line.path for line in document([[[1]], [[2]]]).lines if line.part == "start"]
    assert len(set(paths)) == len(paths) == 5


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 4_000_000,
        ["x" * 1000] * 4000,
        {f"key {n}": n for n in range(200_000)},
        {"k" * 4_000_000: 1},
        _nested(900),
        _nested(100_000),
        [[n] * 100 for n in range(1000)],
        10**5000,
    ],
    ids=["text", "texts", "keys", "long key", "nested", "nested too deeply", "wide", "digits"],
)
def test_what_is_shown_of_a_document_is_bounded(value: Any) -> None:
    made = document(value)
    shown = sum(len(line.text) + len(line.key or "") for line in made.lines)
    assert len(made.lines) <= 3 * VALUES
    assert shown <= CHARACTERS + 3 * TEXT
    starts = [line for line in made.lines if line.part == "start"]
    assert len(starts) == len([line for line in made.lines if line.part == "end"])


@pytest.mark.parametrize(
    "value",
    [b"\xff", float("nan"), object(), {1: {2}}, "\ud800"],
    ids=["bytes", "nan", "object", "set", "surrogate"],
)
def test_a_value_that_is_no_json_is_shown_nevertheless(value: Any) -> None:
    assert document(value).lines
