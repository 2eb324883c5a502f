"""Outcomes are values, and exceptions that Python can handle; rules are checked when a worker is defined."""

import asyncio
import contextlib
import copy
import math
import pickle
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from oban import Cancel, Discard, InvalidJob, Job, Snooze, Worker, job, worker
from oban.error_rules import Rule, rule_for
from oban.errors import ConfigError

OUTCOMES = [Cancel("why"), Cancel(), Discard("why"), Snooze(60), Snooze(timedelta(minutes=1))]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_an_outcome_is_a_value_also_after_it_was_raised(outcome: Any) -> None:
    for other in (copy.copy(outcome), copy.deepcopy(outcome), pickle.loads(pickle.dumps(outcome))):
        with contextlib.suppress(type(outcome)):
            raise other
        assert other == outcome
        assert hash(other) == hash(outcome)
        assert repr(other) == repr(outcome)
    assert eval(repr(outcome), {**globals(), "datetime": __import__("datetime")}) == outcome
    assert outcome not in [Cancel("other"), Discard("other"), Snooze(61), "why", None]


def test_outcomes_of_different_kinds_are_not_equal() -> None:
    assert Cancel("why") != Discard("why")


@pytest.mark.parametrize(
    ("outcome", "name"), [(Cancel(), "reason"), (Discard(), "reason"), (Snooze(1), "seconds")]
)
def test_an_outcome_cannot_be_changed(outcome: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(outcome, name, "x")


def test_outcomes_have_attributes_and_can_be_matched() -> None:
    assert [Cancel("a").reason, Discard("b").reason, Discard().reason] == [
        "a",
        "b",
        "discarded by its worker",
    ]
    assert (Snooze(timedelta(minutes=1)).seconds, Snooze(timedelta(minutes=1)).delay) == (
        timedelta(minutes=1),
        60,
    )
    assert Cancel(reason="a") == Cancel("a")
    match Discard("why"):
        case Discard(reason):
            assert reason == "why"
    assert str(Cancel("why")) == "why"


def test_a_snooze_with_meta_is_a_value_as_well() -> None:
    given: dict[str, Any] = {"page": (1, 2)}
    snooze = Snooze(60, meta=given)
    assert snooze == Snooze(60, {"page": [1, 2]}) != Snooze(60)
    assert hash(snooze) == hash(Snooze(60, {"page": [1, 2]}))
    assert repr(snooze) == "Snooze(seconds=60, meta={'page': [1, 2]})"
    assert pickle.loads(pickle.dumps(snooze)) == snooze
    given["page"] = (3,)
    assert snooze.meta == {"page": [1, 2]}
    assert (Snooze(60).meta, Snooze(60, {})) == (None, Snooze(60))
    wrong: list[Any] = [[], "text", {"a": math.nan}, {1: 2}, {"a": {1}}]
    for meta in wrong:
        with pytest.raises(InvalidJob, match=r"^meta"):
            Snooze(60, meta=meta)


def test_an_outcome_passes_through_context_managers_and_tasks() -> None:
    @contextlib.contextmanager
    def resource() -> Iterator[None]:
        yield

    async def raises() -> None:
        with resource():
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(resource())
                raise Cancel("why") from KeyError("a")

    async def in_a_task() -> None:
        await asyncio.create_task(raises())

    with pytest.raises(Cancel, match="why") as caught:
        asyncio.run(in_a_task())
    assert isinstance(caught.value.__cause__, KeyError)
    caught.value.add_note("a note")
    assert caught.value == Cancel("why")


@pytest.mark.parametrize("seconds", [-1, float("nan"), "x", None, True])
def test_a_snooze_checks_its_delay(seconds: Any) -> None:
    with pytest.raises(InvalidJob, match="Snooze"):
        Snooze(seconds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry_on": "KeyError"}, "retry_on takes classes of exceptions; 'KeyError' is not one"),
        ({"discard_on": int}, "discard_on takes classes of exceptions; <class 'int'> is not one"),
        ({"cancel_on": KeyError("a")}, r"cancel_on takes classes of exceptions; KeyError\('a'\) is not one"),
        ({"discard_on": [KeyError]}, "use a tuple of classes"),
        ({"discard_on": (KeyError, None)}, "None is not one"),
        ({"discard_on": {KeyError: 5}}, "discard_on takes a class of exceptions or a tuple of them, without"),
        (
            {"snooze_on": KeyError},
            r"snooze_on needs the seconds to wait for each class: snooze_on={KeyError: 60}",
        ),
        ({"snooze_on": (KeyError, OSError)}, r"snooze_on={KeyError: 60, OSError: 60}"),
        (
            {"snooze_on": {KeyError: None}},
            "snooze_on must be seconds or a timedelta, not NoneType, for KeyError",
        ),
        ({"retry_on": {KeyError: -1}}, "retry_on must not be negative: -1.0, for KeyError"),
        ({"retry_on": {"KeyError": 1}}, "'KeyError' is not one"),
        ({"retry_on": KeyError, "discard_on": KeyError}, "KeyError is in both retry_on and discard_on"),
        ({"cancel_on": (OSError, IOError)}, "OSError is twice in cancel_on"),
        ({"discard_on": Cancel}, "discard_on cannot have Cancel, which is an outcome itself"),
        ({"retry_onn": KeyError}, "did you mean retry_on"),
    ],
)
def test_wrong_rules_are_refused_at_definition(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        type("Wrong", (Worker,), {"process": lambda self, job: None}, **options)
    with pytest.raises(ConfigError, match=message):
        job(**options)(lambda: None)
    with pytest.raises(ConfigError, match=message):
        worker(**options)(type("Wrong", (), {"process": lambda self, job: None}))


class Parent(Worker, retry_on={OSError: 5}, discard_on=(LookupError, ValueError)):
    def process(self, job: Job) -> None:
        pass


class Child(
    Parent, retry_on=ValueError, cancel_on=FileNotFoundError, snooze_on={KeyError: timedelta(minutes=1)}
):
    pass


class Same(Child, discard_on=(), retry_on=None, snooze_on={}):
    pass


@pytest.mark.parametrize(
    ("error", "parent", "child"),
    [
        (OSError(), Rule("failed", 5), Rule("failed", 5)),
        (TimeoutError(), Rule("failed", 5), Rule("failed", 5)),
        (FileNotFoundError(), Rule("failed", 5), Rule("cancelled")),
        (LookupError(), Rule("discarded"), Rule("discarded")),
        (IndexError(), Rule("discarded"), Rule("discarded")),
        (KeyError(), Rule("discarded"), Rule("snoozed", 60)),
        (UnicodeError(), Rule("discarded"), Rule("failed")),
        (RuntimeError(), None, None),
        (asyncio.CancelledError(), None, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_most_specific_class_decides_and_a_subclass_decides_again(
    error: BaseException, parent: Rule | None, child: Rule | None
) -> None:
    found = [rule_for(made.error_rules, error) for made in (Parent, Child, Same)]
    assert found == [parent, child, child]
