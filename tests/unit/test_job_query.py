"""The query language: what is read, how it is written again, and the errors."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban.errors import InvalidArgument
from oban.job_search import query, terms
from oban.job_search.terms import Age, Anything, Pattern, Term

#: By the text: its terms.
READ: dict[str, list[Term]] = {
    "": [],
    "  ": [],
    "state:available,Retryable": [Term("state", ("available", "retryable"))],
    "queue:mail worker:SendEmail": [Term("queue", ("mail",)), Term("worker", ("SendEmail",))],
    "worker:*Email": [Term("worker", (Pattern("*Email"),))],
    'worker:"*Email"': [Term("worker", ("*Email",))],
    "tag:vip,gold": [Term("tag", ("vip", "gold"))],
    "node:web-1": [Term("node", ("web-1",))],
    "priority:0": [Term("priority", (0,))],
    "attempt:>3": [Term("attempt", (3,), operator=">")],
    "id:42,43": [Term("id", (42, 43))],
    "args.customer.id:7": [Term("args", (7,), ("customer", "id"))],
    'args.customer.id:"7"': [Term("args", ("7",), ("customer", "id"))],
    "args.a:true,null,x,1.5": [Term("args", (True, None, "x", 1.5), ("a",))],
    "args.a:*": [Term("args", (Anything(),), ("a",))],
    'meta.source:"a b"': [Term("meta", ("a b",), ("source",))],
    'meta."a.b".c:x:y': [Term("meta", ("x:y",), ("a.b", "c"))],
    "inserted:<1h": [Term("inserted", (Age("1h"),), operator="<")],
    "scheduled:>2026-11-29": [Term("scheduled", (date(2026, 11, 29),), operator=">")],
    "completed:2026-11-29": [Term("completed", (date(2026, 11, 29),))],
    "cancelled:>=2026-11-29T08:00+01:00": [
        Term("cancelled", (datetime(2026, 11, 29, 7, tzinfo=UTC),), operator=">=")
    ],
    "-queue:slow": [Term("queue", ("slow",), negated=True)],
    "app.workers.Report": [Term("", ("app.workers.Report",))],
    '-"two words" mail': [Term("", ("two words",), negated=True), Term("", ("mail",))],
    r'"a \"b\" \\ c:d"': [Term("", (r'a "b" \ c:d',))],
}

#: By the text: what its error says.
WRONG = {
    "stat:available": "'stat' is not a filter; did you mean state?",
    "customer:4016": "To search for a tag, write 'tag:customer:4016'.",
    "http://x": "'http' is not a filter; the filters are state, queue",
    "state:avalable": "'avalable' is not a state; did you mean available?",
    "queue:": "queue: has no value; such as queue:mail",
    "queue:a,": "queue: has no value",
    "queue:>a": "queue cannot be compared by >",
    'queue:" "': "queue has a blank value",
    "args:7": "args needs a path, such as args.customer.id:7",
    "args.a": "args.a has no value, such as args.customer.id:7",
    "args..a:7": "a key is missing in the path after args.",
    "args.a:[1]": "'[1]' is not a single value",
    "priority:10": "priority is an integer from 0 to 9, not '10'",
    "id:0": "id is an integer from 1",
    "id:99999999999999999999": "id is an integer from 1",
    "inserted:soon": "'soon' is neither a duration, such as 15m",
    "inserted:1h": "inserted:1h needs < or > before the value, as in inserted:<1h",
    "inserted:2026-13-01": "is neither a duration",
    "attempt:>1,2": "attempt:> takes one value, not 2",
    '"open': 'a closing quote is missing after "open',
    '"a"b': "a space is missing before b",
    '""': '"" searches for nothing',
    "-": "a word or a filter is missing after the -",
    "a\x00b": "NUL",
    "x" * 2001: "the search has 2,001 characters; at most 2,000 are allowed",
    "x " * 31: "the search has 31 terms; at most 30 are allowed",
    "args." + "a." * 16 + "b:1": "the path of args has 17 keys; at most 16 are allowed",
}


@pytest.mark.parametrize("text", READ)
def test_each_text_is_read_and_written_again_as_the_same_query(text: str) -> None:
    found = query.parse(text)
    assert list(found.terms) == READ[text]
    assert query.parse(str(found)) == found


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_text_is_refused_with_what_is_wrong(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        query.parse(text)
    assert WRONG[text] in str(caught.value)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
NAMES = TEXTS.filter(lambda text: bool(text.strip()))
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
TERMS = st.one_of(
    st.builds(Term, st.just(""), st.tuples(NAMES), negated=st.booleans()),
    st.builds(Term, st.sampled_from(terms.NAMES), st.lists(NAMES, min_size=1, max_size=3).map(tuple)),
    st.builds(
        Term,
        st.sampled_from(terms.DOCUMENTS),
        st.lists(SCALARS, min_size=1, max_size=3).map(tuple),
        st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
        negated=st.booleans(),
    ),
    st.builds(Term, st.just("priority"), st.tuples(st.integers(0, 9)), operator=st.sampled_from(["", ">"])),
    st.builds(Term, st.just("inserted"), st.tuples(st.dates() | st.datetimes(timezones=st.just(UTC))),
              operator=st.just("<=")),
)  # fmt: skip


@given(st.lists(TERMS, max_size=4))
def test_any_query_is_written_as_a_text_that_is_read_as_the_same_query(found: list[Term]) -> None:
    text = str(query.of(found))
    assert list(query.parse(text).terms) == found
    # 1 equals 1.0 and True.
    assert [json.dumps(each.values, default=str) for each in query.parse(text).terms] == [
        json.dumps(each.values, default=str) for each in found
    ]


@given(st.text(st.characters(codec="utf-8"), max_size=40) | st.text('"\\-:.,<>*aegrs 1', max_size=20))
def test_any_text_is_a_query_or_an_error_of_it(text: str) -> None:
    try:
        found = query.parse(text)
        found.statement()
    except InvalidArgument:
        return
    assert query.parse(str(found)) == found
