"""`SyncOban` is `Oban` without `await`: the same names, arguments and results."""

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Job, Oban, SyncOban
from oban.database.joined import AsyncCaller, SyncCaller

#: Differences by design: ASGI, entering and leaving a client, its sessions, engine and iterables.
ASYNC_ONLY = {"asgi_lifespan"}
RENAMED = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
INSTEAD = {
    AsyncEngine: Engine,
    AsyncCaller | None: SyncCaller | None,
    Iterable[Job] | AsyncIterable[Job]: Iterable[Job],
    AsyncIterator[Job]: Iterator[Job],
}


def members(kind: type) -> dict[str, Any]:
    special = {*RENAMED, *RENAMED.values()}
    names = {name for name in dir(kind) if not name.startswith("_") or name in special}
    return {name: inspect.getattr_static(kind, name) for name in names - ASYNC_ONLY}


def signature(member: Any) -> inspect.Signature:
    function: Any = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return inspect.signature(function)


def without_asyncio(found: inspect.Signature) -> inspect.Signature:
    """The signature that a method of `Oban` must have in `SyncOban`."""
    parameters = [
        one.replace(annotation=INSTEAD.get(one.annotation, one.annotation))
        for one in found.parameters.values()
    ]
    returned = INSTEAD.get(found.return_annotation, found.return_annotation)
    return found.replace(parameters=parameters, return_annotation=returned)


def test_both_have_the_same_public_names() -> None:
    names = {RENAMED.get(name, name) for name in members(Oban)}
    assert names == set(members(SyncOban))
    assert {"enqueue", "list_jobs", "update_many_jobs", "pause_queue", "check_cluster", "stop"} <= names


@pytest.mark.parametrize("name", sorted(members(Oban)))
def test_each_method_has_the_same_arguments_and_result(name: str) -> None:
    ours, theirs = members(Oban)[name], members(SyncOban)[RENAMED.get(name, name)]
    assert type(ours) is type(theirs)
    assert without_asyncio(signature(ours)) == signature(theirs)


def test_no_method_of_the_sync_client_has_to_be_awaited() -> None:
    assert not [name for name, member in members(SyncOban).items() if inspect.iscoroutinefunction(member)]


@pytest.mark.parametrize("name", sorted(members(Oban).keys() - RENAMED.keys()))
def test_both_have_the_same_documentation(name: str) -> None:
    documented = inspect.getdoc(getattr(Oban, name))
    assert documented
    assert documented == inspect.getdoc(getattr(SyncOban, name))
