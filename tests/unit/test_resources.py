"""What a lifespan yields is found by the name of a parameter, or else by its annotation."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pytest

from oban import Job, Oban, Resource, SyncOban, Worker, injected
from oban.errors import ConfigError
from oban.resources import Resources

pytestmark = pytest.mark.usefixtures("own_registry")


class Client:
    pass


class FastClient(Client):
    pass


class Vague(Protocol):
    def get(self) -> str: ...


@runtime_checkable
class Clear(Protocol):
    def get(self) -> str: ...


class Getter:
    def get(self) -> str:
        return "got"


@dataclass
class Everything:
    client: Client


def taking(annotation: Any, name: str = "http", default: Any = injected) -> type[Worker]:
    """A worker that takes one resource."""
    namespace: dict[str, Any] = {"annotation": annotation, "default": default, "Job": Job}
    exec(f"async def process(self, job: Job, {name}: annotation = default): ...", namespace)
    process = namespace["process"]
    cls: type[Worker] = type("Taking", (Worker,), {"process": process}, queue="resources")
    return cls


def found(yielded: Any, *args: Any, **kwargs: Any) -> Any:
    return Resources(yielded).of(taking(*args, **kwargs))


CLIENT, FAST, GETTER = Client(), FastClient(), Getter()
FOUND: list[tuple[Any, Any, Any]] = [
    ({"http": CLIENT}, Client, CLIENT),
    # By name, whatever it is.
    ({"http": GETTER, "other": CLIENT}, Client, GETTER),
    ({"http": None}, Client, None),
    ({"other": CLIENT}, Client, CLIENT),
    ({"other": FAST, "more": GETTER}, Client, FAST),
    # The same object under two names is one.
    ({"a": CLIENT, "b": CLIENT}, Client, CLIENT),
    (CLIENT, Client, CLIENT),
    (CLIENT, Client | None, CLIENT),
    (CLIENT, Resource[Client], CLIENT),
    ("a value", Resource[str], "a value"),
    ({"http": "a value"}, Resource[Any], "a value"),  # type: ignore[misc]
    (GETTER, Clear, GETTER),
    ({"http": GETTER}, Vague, GETTER),
    (Everything(CLIENT), Everything, Everything(CLIENT)),
    ({"http": CLIENT}, "NotDefinedAtRunTime", CLIENT),
]


@pytest.mark.parametrize(("yielded", "annotation", "value"), FOUND)
def test_a_resource_is_found(yielded: Any, annotation: Any, value: Any) -> None:
    assert found(yielded, annotation) == {"http": value}


MISSING: list[tuple[Any, Any, str]] = [
    (
        None,
        Client,
        r"Taking: the lifespan of this node yields nothing for the parameter http: Client of process",
    ),
    ({}, Client, "yields nothing for the parameter http: Client"),
    (GETTER, Client, "yields nothing for the parameter http: Client"),
    (GETTER, Vague, "yields nothing for the parameter http: Vague"),
    (CLIENT, "NotDefinedAtRunTime", "yields nothing for the parameter http: NotDefinedAtRunTime"),
    (
        {"a": Client(), "b": FAST},
        Client,
        "yields 2 values that fit the parameter http: Client: yield a mapping with the key",
    ),
]


@pytest.mark.parametrize(("yielded", "annotation", "problem"), MISSING)
def test_a_resource_that_is_missing_or_ambiguous_is_an_error(
    yielded: Any, annotation: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        found(yielded, annotation)


def test_an_optional_parameter_gets_a_resource_if_there_is_one() -> None:
    assert found(None, Client, default=None) == {}
    assert found(CLIENT, Client, default=None) == {"http": CLIENT}


def test_the_keys_of_a_mapping_must_be_names() -> None:
    with pytest.raises(ConfigError, match="lifespan must yield a mapping of names to values; 1 is no name"):
        Resources({1: CLIENT})


async def coroutine_function(oban: Oban) -> None: ...


async def bare_generator(oban: Oban) -> Any:
    yield CLIENT


def takes_nothing() -> None: ...


BAD: list[tuple[Any, str]] = [
    ("app.lifespan", "lifespan must be a function that takes the Oban, not 'app.lifespan'"),
    (coroutine_function, "coroutine_function is a coroutine function: decorate an async generator with"),
    (bare_generator, r"bare_generator is a generator: decorate an async generator with contextlib\."),
    (takes_nothing, "takes_nothing must take one argument, the Oban"),
]


@pytest.mark.parametrize(("value", "problem"), BAD)
def test_what_cannot_be_a_lifespan_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Oban("sqlite+aiosqlite://", lifespan=value)


def test_a_client_that_runs_no_jobs_takes_no_lifespan() -> None:
    with pytest.raises(ConfigError, match="SyncOban runs no jobs: leave out lifespan"):
        SyncOban("sqlite://", lifespan=lambda oban: oban)


def test_a_default_that_cannot_be_compared_is_one() -> None:
    class Array:
        """Compares its items, like an array of numpy."""

        def __eq__(self, other: object) -> Any:
            return Array()

        def __bool__(self) -> bool:
            raise ValueError("the truth value is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    assert found({}, Client, default=Array()) == {}
