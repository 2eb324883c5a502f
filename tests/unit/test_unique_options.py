"""The options `unique` and `replace` of workers, functions and single jobs."""

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from oban import Job, Unique, Worker, job, worker
from oban.errors import ConfigError, InvalidJob
from oban.repository.update import check_changes
from oban.unique import Replacement, of_job

FOR_A_MINUTE = Unique(60)
POSTPONED = {"scheduled": ("scheduled_at",)}


class Plain(Worker, name="unique.Plain"):
    async def process(self, job: Job) -> None: ...


class Once(Worker, name="unique.Once", unique={"period": 60}, replace={"scheduled": ["scheduled_at"]}):
    async def process(self, job: Job) -> None: ...


def rule(made: Job) -> Unique | None:
    return of_job(made.__dict__)[0]


def replacement(made: Job) -> Replacement:
    return of_job(made.__dict__)[1]


def defined(**options: Any) -> Any:
    """A worker that the decorator has made. mypy ignores what class decorators return."""

    class Decorated:
        async def process(self, job: Job) -> None: ...

    return worker(**options)(Decorated)


def test_jobs_have_the_options_of_their_worker() -> None:
    assert rule(Plain.new()) is None
    for made in (Once.new(), Once.new({"a": 1}, priority=1), Job(worker="unique.Once")):
        assert rule(made) == FOR_A_MINUTE
        assert replacement(made) == POSTPONED


def test_a_subclass_inherits_them_and_can_turn_them_off() -> None:
    class Inherits(Once): ...

    class Off(Once, unique=False): ...

    class Unset(Once, unique=None, replace=None): ...

    class Other(Once, unique=True, replace=["args"]): ...

    for inheriting in (Inherits, Unset):
        assert (rule(inheriting.new()), replacement(inheriting.new())) == (FOR_A_MINUTE, POSTPONED)
    assert (rule(Off.new()), replacement(Off.new())) == (None, {})
    assert rule(Other.new()) == Unique()
    assert replacement(Other.new())["available"] == ("args",)


def test_a_job_can_have_its_own() -> None:
    makers: list[Any] = [Plain.new, lambda **options: Job(worker="unique.Plain", **options)]
    for make in makers:
        made = make(unique={"group": "incomplete"}, replace={"available": ["args"]})
        assert rule(made) == Unique(states="incomplete")
        assert replacement(made) == {"available": ("args",)}
        assert rule(make(unique=FOR_A_MINUTE)) is FOR_A_MINUTE
        assert rule(make(unique=None)) is None
    makers = [Once.new, lambda **options: Job(worker="unique.Once", **options)]
    for make in makers:
        assert rule(make(unique=False)) is None
        assert rule(make(unique=None)) == FOR_A_MINUTE
        assert rule(make(unique=True)) == Unique()
        assert replacement(make(unique=True)) == POSTPONED
        assert replacement(make(replace={})) == {}
        assert replacement(make(replace=None)) == POSTPONED
        assert rule(make(replace=["args"])) == FOR_A_MINUTE


def test_they_are_no_columns_and_are_no_values_of_the_job() -> None:
    made = Plain.new(unique=True, replace=["args"])
    assert "unique" not in made.__dict__
    assert "replace" not in made.__dict__


def test_a_worker_decorator_and_a_function_take_them() -> None:
    @job(unique={"keys": ["user_id"]}, replace=["priority"])
    async def greet(user_id: int, name: str = "") -> None: ...

    assert rule(defined(unique=True).new()) == Unique()
    assert rule(greet.new(1)) == Unique(keys=["user_id"])
    assert replacement(greet.new(1))["completed"] == ("priority",)


def test_with_options_sets_them_and_the_last_call_decides() -> None:
    @job
    async def greet(name: str) -> None: ...

    once = greet.with_options(unique=True, replace=["priority"])
    assert rule(greet.new("a")) is None
    assert rule(once.new("a")) == Unique()
    assert rule(once.with_options(priority=3).new("a")) == Unique()
    assert rule(once.with_options(unique={"period": 60}).new("a")) == FOR_A_MINUTE
    assert rule(once.with_options(unique=False, replace={}).new("a")) is None
    assert replacement(once.with_options(queue="other").new("a"))["available"] == ("priority",)


def test_a_worker_under_an_older_name_keeps_its_rule() -> None:
    class Renamed(Worker, name="unique.Renamed", aliases=["unique.Old"], unique=True):
        async def process(self, job: Job) -> None: ...

    assert rule(Job(worker="unique.Old")) == rule(Renamed.new()) == Unique()


def test_copies_keep_the_options_of_the_job() -> None:
    made = Plain.new(unique={"period": 60}, replace=["args"])
    for copied in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert rule(copied) == FOR_A_MINUTE
        assert replacement(copied) == replacement(made)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"unique": {"period": 0}}, "unique: period must be more than 0"),
        ({"unique": {"states": "incomplte"}}, "did you mean incomplete?"),
        ({"unique": "incomplete"}, "unique must be True"),
        ({"unique": True, "replace": ["scheduled"]}, "replace: .*did you mean scheduled_at?"),
        ({"replace": ["args"]}, "replace is for unique jobs: pass unique as well"),
        ({"unique": False, "replace": ["args"]}, "replace is for unique jobs: pass unique as well"),
        ({"uniq": True}, "did you mean unique?"),
    ],
)
def test_a_wrong_option_of_a_worker_is_a_config_error_that_names_the_class(
    options: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"Wrong: .*{problem}"):
        type("Wrong", (Plain,), {"__qualname__": "Wrong"}, **options)


@pytest.mark.parametrize("make", [Plain.new, lambda **options: Job(worker="unique.Plain", **options)])
@pytest.mark.parametrize(
    ("options", "field", "problem"),
    [
        ({"unique": {"period": True}}, "unique", "unique period must be seconds or a timedelta, not True"),
        ({"unique": 1}, "unique", "unique must be True, False, a dict"),
        ({"unique": True, "replace": ["state"]}, "replace", "'state' cannot be replaced"),
        ({"replace": ["args"]}, "replace", "replace is for unique jobs: pass unique as well"),
        ({"unique": False, "replace": ["args"]}, "replace", "pass unique as well"),
    ],
)
def test_a_wrong_option_of_a_job_is_an_invalid_job(make: Any, options: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidJob, match=problem) as caught:
        make(**options)
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["unique", "replace"])
def test_an_update_does_not_change_them(field: str) -> None:
    with pytest.raises(InvalidJob, match=f"{field} is for new jobs and cannot be updated"):
        check_changes({field: True})


@dataclass
class Account:
    account_id: int
    note: str = ""


class AccountDict(TypedDict):
    account_id: int


class AliasedModel(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    account: int = Field(alias="account_id")


class OpenModel(BaseModel):
    model_config = ConfigDict(extra="allow")
    account_id: int


TYPED: list[Any] = [Account, AccountDict, AliasedModel, Account | AccountDict]


@pytest.mark.parametrize("declared", TYPED, ids=str)
def test_a_key_that_typed_args_do_not_have_is_an_error(declared: Any) -> None:
    made = defined(args=declared, unique={"keys": ["account_id"]})
    assert rule(made.new({"account_id": 1})) == Unique(keys=["account_id"])
    problem = "keys has 'acount_id', but its args have no such key; did you mean account_id?"
    with pytest.raises(ConfigError, match=problem):
        defined(args=declared, unique={"keys": ["acount_id"]})
    with pytest.raises(InvalidJob, match=problem):
        made.new({"account_id": 1}, unique={"keys": ["acount_id"]})


@pytest.mark.parametrize("declared", [OpenModel, dict[str, int], None])
def test_a_key_of_args_that_can_have_any_is_accepted(declared: Any) -> None:
    made = defined(args=declared, unique={"keys": ["anything"]})
    assert rule(made.new({"account_id": 1})) == Unique(keys=["anything"])


def test_a_key_can_be_one_of_meta() -> None:
    made = defined(args=Account, unique={"fields": ["args", "meta"], "keys": ["trace"]})
    assert rule(made.new({"account_id": 1})) == Unique(fields=["args", "meta"], keys=["trace"])


def test_a_key_that_a_function_does_not_take_is_an_error() -> None:
    async def greet(user_id: int) -> None: ...

    with pytest.raises(ConfigError, match="keys has 'user', but its args have no such key"):
        job(unique={"keys": ["user"]})(greet)
    with pytest.raises(InvalidJob, match="keys has 'user', but its args have no such key"):
        job(greet).with_options(unique={"keys": ["user"]})
