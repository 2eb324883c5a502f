"""Aliases: a renamed worker runs the jobs that carry its old names, and no two workers share a name."""

from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from oban import Job, Worker, filters, job, worker
from oban.errors import ConfigError, InvalidJob, UnknownWorker
from oban.registry import names, registry

pytestmark = pytest.mark.usefixtures("own_registry")


def defined(name: str, **options: Any) -> type[Worker]:
    async def process(self: Worker, job: Job) -> None:
        return None

    cls: type[Worker] = type("Defined", (Worker,), {"process": process}, name=name, **options)
    return cls


@pytest.mark.parametrize("aliases", ["old.One", ["old.One", "old.Two"], ("old.One", "old.One"), {"old.One"}])
def test_a_worker_is_found_by_its_aliases(aliases: Any) -> None:
    cls = defined("app.New", aliases=aliases)
    assert registry["app.New"] is registry["old.One"] is cls
    assert cls.new().worker == "app.New"
    assert registry.queues()["app.New"] == "default"
    assert "old.One" not in registry.queues()


def test_functions_and_plain_classes_have_aliases() -> None:
    @job(aliases="old.function")
    async def function() -> None:
        return None

    @worker(aliases=["old.class"], queue="media")
    class Plain:
        async def process(self, job: Job) -> None:
            return None

    assert registry["old.function"] is function.worker
    assert registry["old.class"].worker_name.endswith("Plain")
    assert registry.queues()[registry["old.class"].worker_name] == "media"


def test_a_decorated_worker_keeps_the_aliases_of_its_class_statement() -> None:
    class Both(Worker, name="app.Both", aliases="old.Both"):
        async def process(self, job: Job) -> None:
            return None

    decorated = worker(name="app.Both", queue="media")(Both)
    assert registry["old.Both"] is decorated is not Both


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (("a", None), ("b", "a"), "its alias a is the name of the worker a already"),
        (("a", "b"), ("b", None), "its name b is an alias of the worker a already"),
        (("a", "c"), ("b", ["x", "c"]), "its alias c is an alias of the worker a already"),
    ],
)
def test_two_workers_cannot_share_a_name(first: Any, second: Any, problem: str) -> None:
    cls = defined(first[0], aliases=first[1])
    with pytest.raises(ConfigError, match=f"^Defined: {problem}$"):
        defined(second[0], aliases=second[1])
    assert registry[first[0]] is cls
    with pytest.raises(UnknownWorker):
        registry["x"]


def test_a_reloaded_worker_replaces_its_aliases() -> None:
    defined("a", aliases=["old", "older"])
    again = defined("a", aliases=["old", "a"])
    assert registry["old"] is registry["a"] is again
    assert names(again) == ("a", "old")
    with pytest.raises(UnknownWorker):
        registry["older"]
    assert names(defined("older")) == ("older",)


def test_a_subclass_does_not_inherit_aliases() -> None:
    base = defined("a", aliases="old")

    class Derived(base):  # type: ignore[misc, valid-type]
        pass

    assert names(Derived) == (Derived.worker_name,)
    assert registry["old"] is base


@pytest.mark.parametrize(
    ("aliases", "problem"),
    [
        (5, "aliases must be a name or a list of names, not int"),
        ({"a": 1}, "aliases must be a name or a list of names, not dict"),
        ("", "aliases: a worker's name must not be blank"),
        (["ok", b"x"], "aliases: a worker's name must be a string, not bytes"),
        (["x" * 256], "aliases: a worker's name is longer than 255"),
        (["a\x00"], "aliases: a worker's name holds a NUL"),
    ],
)
def test_wrong_aliases_are_refused(aliases: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^Defined: {problem}"):
        defined("a", aliases=aliases)


def test_a_base_class_cannot_have_aliases() -> None:
    with pytest.raises(ConfigError, match="Base: it has no method process, so it cannot have aliases"):

        class Base(Worker, aliases="old"):
            pass

    assert "old" not in registry


def test_a_filter_for_a_class_finds_its_aliases() -> None:
    cls = defined("app.New", aliases=["old.One"])
    compiled = filters.worker(cls, "other").compile(
        dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
    )
    assert "IN ('app.New', 'old.One', 'other')" in str(compiled)
    with pytest.raises(InvalidJob):
        filters.worker("")
