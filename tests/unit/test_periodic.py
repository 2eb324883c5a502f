"""Periodic entries: how they are defined, and what is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from oban import Job, JobState, Oban, Periodic, SyncOban, Worker, job, worker
from oban.errors import ConfigError
from oban.registry import registry
from oban.worker_entries import declared_entries

pytestmark = pytest.mark.usefixtures("own_registry")


@dataclass
class Args:
    """The args of a typed worker."""

    kind: str
    pages: int = 1


def report(**options: Any) -> Job:
    return Job(worker="app.Report", **options)


def declared(*periodic: Periodic, instance: str = "Oban") -> dict[str, dict[str, Any]]:
    return {entry.name: entry.declared for entry in declared_entries(instance, periodic)}


def defined(bases: tuple[type, ...] = (Worker,), **options: Any) -> Any:
    async def process(self: Worker, job: Job) -> None:
        return None

    return type("Defined", bases, {"process": process}, **{"name": "app.Defined", **options})


PLAIN = {
    "expression": "0 3 * * *",
    "timezone": "UTC",
    "catch_up": "latest",
    "window": 3600.0,
    "worker": "app.Report",
    "queue": "default",
    "args": {},
    "priority": 0,
    "tags": [],
    "meta": {},
}


def test_an_entry_has_the_fields_of_its_job_and_defaults() -> None:
    assert Periodic("nightly", "0 3 * * *", report()).declared == PLAIN
    full = Periodic(
        "nightly",
        "@hourly",
        report(args={"a": [1]}, queue="q", priority=9, max_attempts=3, tags=["B"], meta={"m": None}),
        timezone=ZoneInfo("Europe/Berlin"),
        catch_up=7,
        window=timedelta(days=2),
    )
    assert full.declared == {
        "expression": "@hourly",
        "timezone": "Europe/Berlin",
        "catch_up": 7,
        "window": 172_800.0,
        "worker": "app.Report",
        "queue": "q",
        "args": {"a": [1]},
        "priority": 9,
        "max_attempts": 3,
        "tags": ["b"],
        "meta": {"m": None},
    }
    assert (full.timezone, full.window) == ("Europe/Berlin", 172_800.0)


def test_an_entry_does_not_change_with_its_job() -> None:
    new = report(args={"a": [1]})
    entry = Periodic("nightly", "0 3 * * *", new)
    new.args["a"].append(2)
    assert entry.declared["args"] == {"a": [1]}


def suspended() -> Job:
    new = report()
    new.state = JobState.SUSPENDED
    return new


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "name of a periodic entry must be a string that is not blank"),
        ({"name": 3}, "name of a periodic entry must be a string that is not blank"),
        ({"name": "x" * 256}, "up to 255 characters"),
        ({"name": "a\x00b"}, "the name of a periodic entry"),
        ({"expression": "0 3 * *"}, "periodic 'nightly': the cron expression '0 3 [*] [*]'"),
        ({"expression": None}, "a cron expression is a string"),
        ({"timezone": "Europe/Berlim"}, "Europe/Berlin"),
        ({"timezone": None}, "no time zone"),
        ({"timezone": "../etc/passwd"}, "passwd"),
        ({"catch_up": "last"}, "catch_up must be skip, latest, all or a number from 1 to 10000, not 'last'"),
        ({"catch_up": 0}, "catch_up must be"),
        ({"catch_up": True}, "catch_up must be"),
        ({"catch_up": 10_001}, "catch_up must be"),
        ({"window": 0}, "window must be more than 0 seconds"),
        ({"window": timedelta(days=367)}, "at most 366 days"),
        ({"window": float("nan")}, "window must be finite"),
        ({"window": "1h"}, "window must be seconds or a timedelta"),
        ({"job": Worker}, "job must be a new job, such as MyWorker.new"),
        ({"job": {"worker": "x"}}, "job must be a new job, such as MyWorker.new"),
        ({"job": report(schedule_in=5)}, "leave out scheduled_at and schedule_in"),
        ({"job": report(scheduled_at=datetime.now(UTC))}, "leave out scheduled_at and schedule_in"),
        ({"job": suspended()}, "the state of its job must be available, not suspended"),
    ],
)
def test_a_wrong_entry_is_refused(changes: dict[str, Any], words: str) -> None:
    values = {"name": "nightly", "expression": "0 3 * * *", "job": report(), **changes}
    with pytest.raises(ConfigError, match=words):
        Periodic(**values)
    with pytest.raises(ConfigError, match=words):
        Oban("sqlite://", periodic=[values])


def test_the_option_takes_entries_and_dicts_with_distinct_names() -> None:
    entry = Periodic("a", "0 3 * * *", report())
    oban = Oban("sqlite://", periodic=[entry, {"name": "b", "expression": "@daily", "job": report()}])
    assert [each.name for each in oban.options.periodic] == ["a", "b"]
    with pytest.raises(ConfigError, match="two periodic entries are named 'a'"):
        Oban("sqlite://", periodic=[entry, Periodic("a", "@daily", report())])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Periodic("a", "0 3 * * *", report()), "periodic must be a list of entries"),
        ({"a": "0 3 * * *"}, "periodic must be a list of entries"),
        ("nightly", "periodic must be a list of entries"),
        (3, "periodic must be a list of entries"),
        (["nightly"], "periodic must be a list of entries, such as Periodic"),
        ([{"name": "a", "expression": "@daily"}], "periodic: job is missing"),
        ([{"name": "a", "expresion": "@daily"}], "unknown option 'expresion'; did you mean expression"),
        ([{"declared": {}}], "unknown option 'declared'"),
    ],
)
def test_a_wrong_option_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Oban("sqlite://", periodic=value)


def test_a_client_that_runs_no_jobs_takes_no_entries() -> None:
    with pytest.raises(ConfigError, match="SyncOban runs no jobs: leave out periodic"):
        SyncOban("sqlite://", periodic=[Periodic("a", "0 3 * * *", report())])


def test_workers_of_all_kinds_have_an_entry_under_their_name() -> None:
    class Sub(Worker, cron="0 1 * * *", name="app.Sub", queue="media", max_attempts=3, tags=["x"]):
        async def process(self, job: Job) -> None: ...

    @worker(cron="0 2 * * *", name="app.Plain", timezone="Asia/Tokyo", catch_up="all", window=60)
    class Plain:
        async def process(self, job: Job) -> None: ...

    @job(cron="*/5 * * * *", name="app.function", cron_name="function", args={"kind": "daily"})
    async def function(kind: str, pages: int = 1) -> None: ...

    found = declared()
    assert found["app.Sub"] == {
        **PLAIN,
        "expression": "0 1 * * *",
        "worker": "app.Sub",
        "queue": "media",
        "max_attempts": 3,
        "tags": ["x"],
    }
    assert found["app.Plain"] == {
        **PLAIN,
        "expression": "0 2 * * *",
        "worker": "app.Plain",
        "timezone": "Asia/Tokyo",
        "catch_up": "all",
        "window": 60.0,
    }
    assert found["function"] == {
        **PLAIN,
        "expression": "*/5 * * * *",
        "worker": "app.function",
        "args": {"kind": "daily"},
    }
    # The next test of a declaration must not change what new jobs get.
    found["app.Sub"]["tags"].append("y")
    assert Sub.new().tags == ["x"]


def test_args_of_a_declared_type_are_stored_as_json() -> None:
    class Typed(Worker[Args], cron="@daily", args=Args("sales"), name="app.Typed"):
        async def process(self, job: Job, args: Args) -> None: ...

    class FromDict(Worker[Args], cron="@daily", args={"kind": "stock"}, name="app.FromDict"):
        async def process(self, job: Job, args: Args) -> None: ...

    options: dict[str, Any] = {"args": Args("both"), "cron": "@daily", "name": "app.Inferred"}

    @worker(**options)
    class Inferred:
        async def process(self, job: Job, args: Args) -> None: ...

    @worker(cron="@daily", args={"kind": "plain"}, name="app.Dict")
    class Dict:
        async def process(self, job: Job, args: Mapping[str, Any]) -> None: ...

    found = declared()
    assert found["app.Typed"]["args"] == {"kind": "sales", "pages": 1}
    assert found["app.FromDict"]["args"] == {"kind": "stock", "pages": 1}
    assert found["app.Inferred"]["args"] == {"kind": "both", "pages": 1}
    assert registry["app.Inferred"].new(Args("x")).args == {"kind": "x", "pages": 1}
    assert found["app.Dict"]["args"] == {"kind": "plain"}


def test_a_decorated_worker_keeps_its_declared_type_and_its_entry() -> None:
    @worker(args={"kind": "sales"}, cron="@daily", name="app.Typed")
    class Typed(Worker[Args], name="app.Typed"):
        async def process(self, job: Job, args: Args) -> None: ...

    @worker(queue="media")
    class Sub(Worker, cron="@daily", name="app.Sub"):
        async def process(self, job: Job) -> None: ...

    assert declared()["app.Typed"]["args"] == {"kind": "sales", "pages": 1}


def test_the_type_of_args_can_still_be_declared_by_the_decorator() -> None:
    @worker(args=Args, name="app.Typed")
    class Typed:
        async def process(self, job: Job, args: Args) -> None: ...

    assert registry["app.Typed"].new(Args("x")).args == {"kind": "x", "pages": 1}
    with pytest.raises(ConfigError, match="kind"):

        @worker(args=Args, cron="@daily", name="app.Other")
        class Other:
            async def process(self, job: Job, args: Args) -> None: ...


def test_the_instance_of_a_worker_has_its_entry() -> None:
    defined(cron="@daily", oban="reports")
    assert declared() == {}
    assert [*declared(instance="reports")] == ["app.Defined"]


def test_a_subclass_has_no_entry_unless_it_says_so() -> None:
    base = defined(cron="@daily", queue="media")
    defined((base,), name="app.Sub")
    assert [*declared()] == ["app.Defined"]
    defined((base,), name="app.Other", cron="@hourly")
    assert declared()["app.Other"]["queue"] == "media"


def test_a_class_that_is_defined_again_replaces_its_entry() -> None:
    defined(cron="@daily")
    defined(cron="@hourly")
    assert declared()["app.Defined"]["expression"] == "@hourly"
    defined()
    assert declared() == {}


def test_two_entries_of_the_same_name_are_refused_when_the_client_is_made() -> None:
    defined(cron="@daily", cron_name="nightly")
    with pytest.raises(ConfigError, match="two periodic entries are named 'nightly'"):
        Oban("sqlite://", periodic=[Periodic("nightly", "0 3 * * *", report())])
    Oban("sqlite://", name="other", periodic=[Periodic("nightly", "0 3 * * *", report())])
    defined(name="app.Other", cron="@daily", cron_name="nightly")
    with pytest.raises(ConfigError, match="two periodic entries are named 'nightly'"):
        Oban("sqlite://")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cron": "0 3 * *"}, "the cron expression '0 3 [*] [*]'"),
        ({"cron": "@fortnightly"}, "@fortnightly"),
        ({"cron": "@daily", "timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"cron": "@daily", "catch_up": "last"}, "catch_up must be"),
        ({"cron": "@daily", "window": -1}, "window must be more than 0"),
        ({"cron": "@daily", "cron_name": " "}, "name of a periodic entry"),
        ({"cron": "@daily", "args": [1]}, "args"),
        ({"cron": "@daily", "args": {"a": object()}}, "args"),
        ({"timezone": "Asia/Tokyo"}, "unknown option 'timezone' without cron: it is about periodic jobs"),
        ({"catch_up": "all"}, "unknown option 'catch_up' without cron: it is about periodic jobs"),
        ({"window": 60}, "unknown option 'window' without cron: it is about periodic jobs"),
        ({"cron_name": "x"}, "unknown option 'cron_name' without cron: it is about periodic jobs"),
        ({"args": {"a": 1}}, "unknown option 'args' without cron: it is about periodic jobs"),
    ],
)
def test_wrong_options_of_a_worker_are_refused_when_it_is_defined(options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"Defined: .*{words}"):
        defined(**options)
    with pytest.raises(ConfigError, match=words):
        worker(**options)(type("Plain", (), {"process": lambda self, job: None}))
    with pytest.raises(ConfigError, match=words):
        job(**options)(lambda a=None: None)
    assert declared() == {}


def test_options_that_are_none_are_not_set() -> None:
    unset: Any = dict.fromkeys(("cron", "timezone", "catch_up", "window", "cron_name", "args"))
    defined(**unset)
    assert declared() == {}


def test_a_base_class_without_process_cannot_have_an_entry() -> None:
    with pytest.raises(ConfigError, match="has no method process, so it cannot have cron"):
        type("Base", (Worker,), {}, cron="@daily")


def test_a_function_has_to_take_the_args_of_its_entry() -> None:
    def send(to: str) -> None: ...

    with pytest.raises(ConfigError, match=r"send: cron: .*missing a required argument: 'to'"):
        job(cron="@daily", name="app.send")(send)
    with pytest.raises(ConfigError, match=r"send: cron: .*unexpected keyword argument 'cc'"):
        job(cron="@daily", name="app.send", args={"to": "a@b.c", "cc": "x"})(send)
    assert declared() == {}


def test_the_rule_of_a_unique_worker_is_part_of_the_entry() -> None:
    defined(cron="@daily", unique={"period": 60, "states": "incomplete"}, replace={"scheduled": ["args"]})
    found = declared()["app.Defined"]
    assert found["unique"] == {
        "period": 60.0,
        "fields": ["worker", "queue", "args"],
        "keys": [],
        "states": ["available", "scheduled", "suspended", "executing", "retryable"],
        "timestamp": "inserted_at",
    }
    assert found["replace"] == {"scheduled": ["args"]}
    off = Periodic("off", "@daily", defined(unique=True).new(unique=False))
    assert off.declared["unique"] is None
    assert "replace" not in off.declared
