"""Secret values are found in a text in every form that they take there."""

import json
import time
import traceback
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from oban.secret_values import REDACTED, Secrets

SECRET = 'it\'s a "canary/7"\nwith é & two lines'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"before {SECRET} after {SECRET}",
        f"{SECRET!r}",
        f"{ {'token': SECRET}!r}",
        repr(repr(SECRET)),
        ascii(SECRET),
        repr(SECRET.encode()),
        json.dumps({"token": SECRET}),
        json.dumps({"token": SECRET}, ensure_ascii=False),
        json.dumps(json.dumps([SECRET])),
        repr(json.dumps(SECRET)),
        unicodedata.normalize("NFD", SECRET),
        quote(SECRET),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        "".join(traceback.format_exception(ExceptionGroup("g", [ValueError(SECRET)]))),
    ],
)
def test_a_text_is_replaced_however_it_is_escaped(text: str) -> None:
    shown = Secrets([SECRET]).text(text)

    assert REDACTED in shown
    assert "canary" not in shown.lower()
    assert "lines" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("input_value='canary-12345...90-abcdefgh'", "input_value='[redacted]...[redacted]'"),
        (
            "'canary-1 ... (20 characters truncated) ... cdefgh'",
            "'[redacted] ... (20 characters truncated) ... [redacted]'",
        ),
        ("canary-123…", "[redacted]…"),
        (
            "canary\n… 8,123 characters left out …\nefgh end",
            "[redacted]\n… 8,123 characters left out …\n[redacted] end",
        ),
        ("the canary is... not here", "the canary is... not here"),
    ],
)
def test_the_ends_of_a_text_that_was_cut_are_replaced(text: str, shown: str) -> None:
    assert Secrets(["canary-1234567890-abcdefgh"]).text(text) == shown


@pytest.mark.parametrize("text", ["4111", "n=4111,", "4,111", "4_111", "4111.0", "4111.00", "x4111y"])
def test_a_number_is_replaced_in_its_usual_formats(text: str) -> None:
    shown = Secrets([{"card": [4111]}]).text(text)

    assert REDACTED in shown
    assert "111" not in shown


def test_a_short_value_is_replaced_where_it_stands_alone() -> None:
    secrets = Secrets(["789", 12])

    assert (
        secrets.text("cvv '789', 12 tries, line 1789, x12")
        == f"cvv '{REDACTED}', {REDACTED} tries, line 1789, x12"
    )


def test_values_that_say_nothing_are_left_alone() -> None:
    text = "True False None 1 x \n    return"

    assert Secrets([True, False, None, 1, "x", "", "    "]).text(text) == text


def test_a_value_in_another_one_is_not_replaced_twice() -> None:
    assert (
        Secrets(["redacted", "acted", "secret-acted"]).text("secret-acted redacted")
        == f"{REDACTED} {REDACTED}"
    )


def test_a_document_is_copied_without_the_values() -> None:
    document = {"canary-1": ["a canary-1", 4111, True, None, {"n": 1}]}

    shown = Secrets(["canary-1", 4111]).value(document)

    assert shown == {REDACTED: [f"a {REDACTED}", REDACTED, True, None, {"n": 1}]}
    assert document["canary-1"][0] == "a canary-1"


class Attribute(Exception):
    def __str__(self) -> str:
        return "no secrets here"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def with_cause() -> BaseException:
    error = raised(ValueError("outer"))
    error.__cause__ = raised(KeyError({"token": "canary-1"}))
    return error


def with_context() -> BaseException:
    error = raised(ValueError("outer"))
    error.__context__ = raised(KeyError("canary-1"))
    return error


def with_note() -> BaseException:
    error = raised(ValueError("outer"))
    error.add_note("sent canary-1")
    return error


def with_attribute() -> BaseException:
    error = raised(Attribute())
    error.response = {"token": "canary-1"}  # type: ignore[attr-defined]
    return error


def in_circle() -> BaseException:
    error = with_cause()
    assert error.__cause__ is not None
    error.__cause__.__context__ = error
    return error


@pytest.mark.parametrize(
    "error",
    [
        raised(ValueError("a canary-1 b")),
        raised(OSError(2, "canary-1")),
        raised(SyntaxError("canary-1", ("f", 1, 1, "x = 'canary-1'"))),
        raised(SystemExit("canary-1")),
        raised(BaseExceptionGroup("canary-1", [ValueError("canary-1"), with_note()])),
        with_cause(),
        with_context(),
        with_note(),
        with_attribute(),
        in_circle(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_is_shown_without_the_values(error: BaseException) -> None:
    shown = Secrets(["canary-1"]).error(error)

    text = "".join(traceback.format_exception(shown))
    assert "canary" not in text
    assert "canary" not in repr((shown, vars(shown), shown.args))
    assert type(shown).__qualname__ == type(error).__qualname__
    assert type(shown).__module__ == type(error).__module__
    assert shown.__traceback__ is error.__traceback__
    if shown.__cause__ is not None:
        assert "canary" not in repr(shown.__cause__)


def test_an_exception_without_the_values_stays_as_it_is() -> None:
    error = raised(ValueError("nothing"))

    assert Secrets(["canary-1"]).error(error) is error


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("canary-1")


def test_an_exception_that_cannot_be_printed_is_shown_as_one() -> None:
    assert "canary" not in "".join(traceback.format_exception(Secrets(["canary-1"]).error(raised(Broken()))))


def test_a_long_value_costs_little() -> None:
    secrets = Secrets(["x" * 4_000_000, "é\n" * 100_000])

    assert secrets.text("a short text...") == "a short text..."


def nasty(count: int) -> Secrets:
    return Secrets([f"tok-{number:06}'\n\"é" for number in range(count)])


@pytest.mark.parametrize(
    "replace",
    [
        lambda: nasty(3_000).text("x" * 300_000),
        lambda: nasty(3_000).text("tok- ... 1234 ... " * 400),
        lambda: nasty(1).text("cut ..." + " " * 100_000 + "end"),
        lambda: nasty(1).text("cut ... 12 characters" + " " * 20_000 + "end"),
        lambda: Secrets([[*range(30_000)]]).text("job 17 of 300 " * 20_000),
        lambda: Secrets(["ab" * 8_000 + "c"]).text("ab" * 50_000),
    ],
    ids=["long text", "many marks", "spaces", "spaces after a number", "numbers", "repetitions"],
)
def test_the_time_is_bounded(replace: Callable[[], str]) -> None:
    started_at = time.process_time()

    replace()

    assert time.process_time() - started_at < 3


def test_values_that_overlap_are_replaced_whole() -> None:
    assert Secrets(["canary-one", "one-zebra"]).text("a canary-one-zebra b") == f"a {REDACTED} b"


def with_many_causes() -> BaseException:
    error: BaseException = raised(KeyError("canary-1"))
    for number in range(3_000):
        outer = raised(ValueError(f"{number} canary-1"))
        outer.__cause__ = error
        error = outer
    return error


def with_many_groups() -> BaseException:
    error: BaseException = raised(ValueError("canary-1"))
    for _ in range(3_000):
        error = BaseExceptionGroup("canary-1", [error])
    return error


class HidesCause(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise RuntimeError("canary-1")

    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise RuntimeError("canary-1")


@pytest.mark.parametrize(
    "error",
    [with_many_causes(), with_many_groups(), HidesCause("canary-1")],
    ids=["causes", "groups", "class"],
)
def test_no_exception_is_too_strange_to_be_shown(error: BaseException) -> None:
    shown: BaseException | None = Secrets(["canary-1"]).error(error)

    assert type(shown).__name__ == type(error).__name__
    while shown is not None:
        assert "canary" not in repr((str(shown), shown.args))
        shown = shown.__cause__
