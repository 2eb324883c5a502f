"""The text of an error is limited in bytes of JSON, as the row grows by those."""

import traceback
from collections.abc import Callable

import orjson
import pytest

from oban import error_texts

LONG = {
    "ascii": "x" * 1_000_000,
    "emoji": "🎉" * 300_000,
    "quotes": '"' * 1_000_000,
    "control": "\x01" * 1_000_000,
    "surrogates": "\ud83d" * 1_000_000,
    "mixed": "x" * 4000 + "\x02" * 100_000 + "é" * 4000,
    "just too long": "x" * (error_texts.MAX_ERROR - 1),
    "short, but not as json": "\n" * 5000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_a_long_text_is_shortened_to_the_limit(text: str) -> None:
    stored = error_texts.sanitize("begin" + text + "end")
    size = len(orjson.dumps(stored))
    assert error_texts.MAX_ERROR * 0.8 < size <= error_texts.MAX_ERROR
    assert stored.startswith("begin")
    assert stored.endswith("end")
    kept, _, left_out = stored.partition("\n… ")
    number, _, tail = left_out.partition(" characters left out …\n")
    # Every character is either in the text or counted as missing.
    assert len(kept) + int(number.replace(",", "")) + len(tail) == len("begin" + text + "end")


@pytest.mark.parametrize("text", ["x" * (error_texts.MAX_ERROR - 2), "🎉" * 2047, "\n" * 4095])
def test_a_text_that_just_fits_is_unchanged(text: str) -> None:
    assert error_texts.sanitize(text) == text


class Odd(type):
    def __getattribute__(cls, name: str) -> object:
        if name in ("__name__", "__qualname__", "__module__"):
            raise SystemExit("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Odd):
    pass


class EndsTheNode(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


@pytest.mark.parametrize("error", [Nameless("x"), EndsTheNode()], ids=["nameless", "ends"])
def test_an_exception_that_answers_with_another_has_a_text(error: Exception) -> None:
    try:
        raise error
    except Exception as caught:
        text = error_texts.error_text(caught)
    assert type.__dict__["__qualname__"].__get__(type(error)) in text or "unprintable" in text
    assert "test_error_texts.py" in text


def test_an_exception_that_cannot_even_be_formatted_has_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: BaseException) -> list[str]:
        raise MemoryError

    monkeypatch.setattr(traceback, "format_exception", fails)
    assert error_texts.error_text(ValueError("x")) == "ValueError: <the exception could not be printed>"


def _fail() -> None:
    raise ValueError("no such customer:\n    7\nTry another one.")


def _fail_in_a_group() -> None:
    raise ExceptionGroup("two jobs failed", [ValueError("one"), ValueError("two")])


def _fail_again() -> None:
    try:
        _fail()
    except ValueError:
        raise KeyError("seven") from None


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        (_fail, "ValueError: no such customer:"),
        (_fail_in_a_group, "ExceptionGroup: two jobs failed (2 sub-exceptions)"),
        (_fail_again, "KeyError: 'seven'"),
    ],
)
def test_the_line_of_a_stored_traceback_names_the_exception(fail: Callable[[], None], line: str) -> None:
    with pytest.raises((ValueError, KeyError, ExceptionGroup), match=r"customer|failed|seven") as raised:
        fail()
    text = error_texts.error_text(raised.value)
    assert "Traceback" in text
    assert error_texts.last_error([{"error": "an earlier one"}, {"error": text}]) == line


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        ([{"error": "\nnot needed\nany more"}], "not needed"),
        (["stored by another program"], "stored by another program"),
        ([{"error": '  File "x.py", line 1'}], 'File "x.py", line 1'),
        ([{"error": None}], ""),
        ([{}], ""),
        ([], ""),
        (None, ""),
        ({"error": "x"}, ""),
    ],
)
def test_whatever_is_stored_as_errors_has_a_line(errors: object, line: str) -> None:
    assert error_texts.last_error(errors) == line
