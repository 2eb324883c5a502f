"""Which jobs are unique, and what their keys are."""

import json
import math
import sqlite3
import unicodedata
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings

from oban import Job, Unique, UniqueConflict, encoding, unique, unique_options
from oban.errors import ConfigError, InvalidJob, ObanError
from oban.types import STATES, JobState
from tests.support.json_documents import DOCUMENTS


def key(args: Any, **options: Any) -> str:
    return Unique(fields=["args"], **options).key({"args": args})


def test_true_compares_worker_queue_and_args_of_jobs_that_were_not_cancelled_or_discarded() -> None:
    rule = Unique.parse(True)
    assert rule == Unique()
    assert rule is not None
    assert (rule.period, rule.fields, rule.keys) == (None, ("worker", "queue", "args"), ())
    assert {*rule.states} == {*STATES} - {"cancelled", "discarded"}
    assert rule.timestamp == "inserted_at"


@pytest.mark.parametrize("value", [False, None])
def test_false_and_none_are_no_rule(value: object) -> None:
    assert Unique.parse(value) is None


def test_a_dict_sets_what_differs_from_the_defaults() -> None:
    rule = Unique.parse(
        {
            "period": timedelta(minutes=5),
            "fields": ["args", "worker"],
            "keys": ["b", "a", "b"],
            "group": "incomplete",
            "timestamp": "scheduled_at",
        }
    )
    assert rule == Unique(300, ("worker", "args"), ("b", "a"), "incomplete", "scheduled_at")
    assert rule is not None
    assert rule.period == 300.0
    assert rule.states == ("available", "scheduled", "suspended", "executing", "retryable")
    assert Unique.parse(rule) is rule


def test_group_is_another_word_for_states_of_an_object_as_well() -> None:
    assert Unique(60, group="incomplete") == Unique(60, states="incomplete")
    assert Unique(group=["scheduled"]).states == ("scheduled",)
    assert Unique(group="successful") == Unique.parse(True)


@pytest.mark.parametrize("states", ["all", "successful", ["scheduled"]])
def test_states_and_group_of_an_object_exclude_each_other(states: Any) -> None:
    with pytest.raises(ConfigError, match="unique: states and group mean the same: pass one of them"):
        Unique(states=states, group="all")


def test_groups_are_those_of_other_editions_and_have_every_state() -> None:
    assert list(unique_options.GROUPS["all"]) == STATES
    assert {*unique_options.GROUPS} == {"all", "incomplete", "scheduled", "successful", "executing"}
    for name, states in unique_options.GROUPS.items():
        for value in (name, [*reversed(states)], [JobState(state) for state in states]):
            rule = Unique.parse({"states": value})
            assert rule is not None
            assert rule.states == states
            assert all(type(state) is str for state in rule.states)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (1, "unique must be True, False, a dict"),
        ("incomplete", "unique must be True, False, a dict"),
        ([], "unique must be True, False, a dict"),
        ({"perod": 1}, "unknown option 'perod'; did you mean period?"),
        ({1: 2}, "unknown option 1; known are fields, group, keys, period, states, timestamp"),
        ({"period": 0}, "period must be more than 0 seconds"),
        ({"period": -1}, "period must be more than 0 seconds"),
        ({"period": timedelta(0)}, "period must be more than 0 seconds"),
        ({"period": math.nan}, "period must be more than 0 seconds"),
        ({"period": math.inf}, "period must be more than 0 seconds"),
        ({"period": 10**400}, "period must be more than 0 seconds"),
        ({"period": True}, "period must be seconds or a timedelta, not True"),
        ({"period": "60"}, "period must be seconds or a timedelta, not '60'"),
        ({"fields": ["arg"]}, "fields has 'arg', which is not one of them; did you mean args?"),
        ({"fields": "args"}, "fields must be a list such as"),
        ({"fields": []}, "fields is empty"),
        ({"fields": None}, "fields must be a list such as"),
        ({"fields": [1]}, "fields must be strings; 1 is not"),
        ({"keys": "id"}, "keys must be a list such as"),
        ({"keys": [["id"]]}, "keys must be strings"),
        ({"keys": ["a\x00"]}, "NUL"),
        ({"fields": ["worker"], "keys": ["id"]}, 'add "args" or "meta" to fields'),
        ({"states": "incomplet"}, "'incomplet' is not a group of states; did you mean incomplete?"),
        ({"states": "available"}, 'pass \\["available"\\]'),
        ({"states": ["availabel"]}, "which is not one of them; did you mean available?"),
        ({"states": []}, "states is empty"),
        ({"states": None}, "states must be a list such as"),
        ({"states": "all", "group": "all"}, "pass one of them"),
        ({"timestamp": "completed_at"}, "timestamp must be inserted_at or scheduled_at"),
        ({"timestamp": []}, "timestamp must be inserted_at or scheduled_at"),
    ],
)
def test_a_wrong_value_is_a_config_error_that_names_the_option(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        Unique.parse(value)
    assert str(caught.value).startswith("unique")


def test_a_rule_is_json_and_can_be_read_again() -> None:
    rule = Unique(60, ["args", "meta"], ["id"], "executing", "scheduled_at")
    assert Unique.from_rule(json.loads(json.dumps(rule.rule()))) == rule


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (None, None),
        ([], None),
        ("x", None),
        ({}, Unique()),
        ({"states": ["dreaming"]}, None),
        ({"states": ["dreaming", "executing"]}, Unique(states=["executing"])),
        ({"states": 3, "period": -1, "fields": ["x"], "keys": 1, "timestamp": 1}, Unique()),
        ({"period": 5, "more": 1}, Unique(5)),
        ({"fields": ["meta"], "keys": ["id"]}, Unique(fields=["meta"], keys=["id"])),
        ({"fields": ["worker"], "keys": ["id"]}, Unique(fields=["worker"])),
    ],
)
def test_a_rule_of_another_program_is_read_as_far_as_possible(rule: Any, expected: Unique | None) -> None:
    assert Unique.from_rule(rule) == expected


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"n": 1}, {"n": 1.0}),
        ({"n": 10**20}, {"n": 1e20}),
        ({"n": 0.0}, {"n": -0.0}),
        ({"n": 2**70}, {"n": float(2**70)}),
        # As jsonb writes these floats out.
        ({"n": 38832210172080340}, {"n": 3.883221017208034e16}),
        ({"n": 1180591620717411300000}, {"n": float(2**70)}),
        ({"a": 1, "b": {"c": 2, "d": [3]}}, {"b": {"d": [3.0], "c": 2}, "a": 1}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
    ],
)
def test_equal_json_has_the_same_key(left: Any, right: Any) -> None:
    assert key(left) == key(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"n": 1}, {"n": True}),
        ({"n": 1}, {"n": "1"}),
        ({"n": 1}, {"n": 1.5}),
        ({"n": 2**70}, {"n": 2**70 + 1}),
        ({"n": 2**63}, {"n": 2**63 + 1}),
        ({"n": None}, {}),
        ({"n": [1, 2]}, {"n": [2, 1]}),
        ({"n": [[1], 2]}, {"n": [1, [2]]}),
        ({"n": unicodedata.normalize("NFC", "é")}, {"n": unicodedata.normalize("NFD", "é")}),
        ({"n": "A"}, {"n": "a"}),
        ({"n": ""}, {"n": None}),
        ({"n": {}}, {"n": []}),
    ],
)
def test_other_json_has_another_key(left: Any, right: Any) -> None:
    assert key(left) != key(right)


def test_the_values_of_one_field_do_not_run_into_the_next() -> None:
    names = Unique(fields=["worker", "queue"]).key
    assert names({"worker": "ab", "queue": "c"}) != names({"worker": "a", "queue": "bc"})
    documents = Unique(fields=["args", "meta"]).key
    assert documents({"args": {"a": 1}, "meta": {}}) != documents({"args": {}, "meta": {"a": 1}})
    assert Unique(fields=["args"]).key({"args": {"a": 1}}) != Unique(fields=["meta"]).key({"meta": {"a": 1}})
    assert Unique(fields=["worker"]).key({"worker": "a"}) != Unique(fields=["queue"]).key({"queue": "a"})


def test_only_the_chosen_keys_of_args_and_meta_count() -> None:
    by_id = Unique(fields=["args", "meta"], keys=["id"]).key
    first = by_id({"args": {"id": 1, "x": 1}, "meta": {"id": 2, "x": 1}})
    assert first == by_id({"args": {"id": 1, "x": 2}, "meta": {"id": 2}})
    assert first != by_id({"args": {"id": 1}, "meta": {"id": 3}})
    assert by_id({"args": {"id": None}, "meta": {}}) != by_id({"args": {}, "meta": {}})
    only_args = Unique(fields=["worker", "args"], keys=["id"]).key
    assert only_args({"worker": "w", "args": {"id": 1}, "meta": {"id": 1}}) == only_args(
        {"worker": "w", "args": {"id": 1}, "meta": {"id": 2}}
    )


def test_jobs_that_are_compared_by_one_key_are_no_duplicates_of_those_compared_by_all() -> None:
    # Else {"a": 1, "b": 2} would keep {"a": 1} out, whose own rule compares all of its args.
    assert key({"a": 1, "b": 2}, keys=["a"]) != key({"a": 1})
    assert key({"a": 1}, keys=["a"]) != key({"a": 1}, keys=["a", "b"])
    assert key({"a": 1, "b": 2}, keys=["a", "b"]) == key({"a": 1, "b": 2}, keys=["b", "a"])


def test_a_key_does_not_change_with_the_release() -> None:
    # It is stored: another form of it would let duplicates in during an upgrade.
    values = {
        "worker": "app.Mail",
        "queue": "default",
        "args": {"to": "zoë", "n": 1.0, "f": 1e-7},
        "meta": {},
    }
    assert Unique().key(values) == "f4114390d93e29b99a4814c2f187111c"
    assert Unique(keys=["to"]).key(values) == "6c7dafebcc7fdfbceb483f87b538895f"


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), "\ud800", {1}])
def test_a_value_that_is_not_json_has_no_key(value: Any) -> None:
    with pytest.raises(InvalidJob):
        key({"a": value})


def test_a_value_that_is_nested_as_deeply_as_possible_has_a_key() -> None:
    value: Any = 1
    for _ in range(encoding.MAX_DEPTH - 1):
        value = [value]
    assert key({"a": value}) != key({"a": [value]})


@settings(max_examples=60, deadline=None, derandomize=True)
@given(DOCUMENTS)
def test_a_document_of_sqlite_has_the_key_that_it_had_before(document: Any) -> None:
    stored = encoding.json_object(document, "args")
    with closing(sqlite3.connect(":memory:")) as connection:
        (text,) = connection.execute("SELECT json(?)", (encoding.dumps(stored),)).fetchone()
    assert key(encoding.loads(text)) == key(stored) == key(document)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"scheduled": ["scheduled_at", "args"]}, {"scheduled": ("scheduled_at", "args")}),
        ({"executing": ["scheduled_at", "tags"]}, {"executing": ("tags",)}),
        ({"executing": ["scheduled_at"], "available": ()}, {}),
        ({}, {}),
    ],
)
def test_replace_names_fields_by_state_but_never_the_time_of_an_executing_job(
    value: Any, expected: Any
) -> None:
    assert unique.parse_replace(value) == expected


def test_a_list_of_fields_to_replace_is_for_all_states() -> None:
    replacement = unique.parse_replace(["scheduled_at", "priority"])
    assert {*replacement} == {*STATES}
    assert replacement["executing"] == ("priority",)
    assert replacement["completed"] == ("scheduled_at", "priority")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (["scheduled"], "'scheduled' cannot be replaced; did you mean scheduled_at?"),
        (["id"], "'id' cannot be replaced"),
        ("args", "fields must be a list such as"),
        (3, "fields must be a list such as"),
        ({"schedule": ["args"]}, "'schedule' is not a state; did you mean scheduled?"),
        ({"incomplete": ["args"]}, "'incomplete' is not a state"),
        ({"scheduled": "args"}, "fields must be a list such as"),
        ({"scheduled": {"args": 1}}, "fields must be a list such as"),
        ({"scheduled": [["args"]]}, "fields must be strings"),
    ],
)
def test_a_wrong_replacement_is_a_config_error(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        unique.parse_replace(value)


def test_the_own_rule_of_a_job_comes_before_that_of_its_worker() -> None:
    assert unique.of_job({"worker": "unknown.Worker"}) == (None, {})
    assert unique.of_job({"worker": "unknown.Worker", "_unique": Unique(5)}) == (Unique(5), {})
    assert unique.of_job({"worker": "unknown.Worker", "_unique": None}) == (None, {})
    replacement = {"scheduled": ("args",)}
    own = {"worker": "unknown.Worker", "_unique": Unique(), "_replace": replacement}
    assert unique.of_job(own) == (Unique(), replacement)


@pytest.mark.parametrize("make", [UniqueConflict, lambda job_id: UniqueConflict(job_id=job_id)])
def test_a_conflict_names_the_job_that_is_in_the_way(make: Callable[[int], UniqueConflict]) -> None:
    error = make(7)
    assert (error.job_id, error.id) == (7, 7)
    assert "job 7" in str(error)
    assert isinstance(error, ObanError)


def test_a_new_job_is_no_conflict() -> None:
    assert Job(worker="w").conflict is False
