"""A stored document that Python cannot decode becomes a marker, never an exception."""

from typing import Any

import pytest

from oban import encoding
from oban.encoding import Undecodable

UNDECODABLE = {
    "broken": '{"a": ',
    "empty": "",
    "deep": "[" * 100_000 + "]" * 100_000,
    "digits": '{"a": ' + "9" * 5000 + "}",
    "digits beyond a float": '{"a": 1' + "0" * 400 + "}",
    "exponent": '{"a": 1e400}',
    "nan": '{"a": NaN}',
    "infinity": '{"a": -Infinity}',
    "bytes": b'{"a": "\xff"}',
}


@pytest.mark.parametrize("text", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_a_document_that_cannot_be_decoded_is_a_marker_that_says_why(text: str | bytes) -> None:
    document = encoding.decode_column(text)
    assert isinstance(document, Undecodable)
    assert document.problem.startswith("cannot be decoded: ")
    assert len(document.problem) < 600
    assert repr(document) == f"<{document.problem}>"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, "x"]}', {"a": [1, 2.5, "x"]}),
        ("null", None),
        (b"[]", []),
        (str(10**30 + 1), 10**30 + 1),
    ],
)
def test_any_other_document_is_its_value(text: str | bytes, value: Any) -> None:
    assert encoding.decode_column(text) == value


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a number"),
        ("x", "a string"),
        ([], "a list"),
        ({}, "an object"),
    ],
)
def test_values_have_the_names_of_json_types(value: object, name: str) -> None:
    assert encoding.json_type(value) == name
