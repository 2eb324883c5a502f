"""A worker whose `process` could not run is refused when it is defined, with a sentence that says why."""

import abc
import asyncio
import enum
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NewType, Protocol, TypeVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from oban import Job, Resource, Worker, injected, job, worker
from oban.errors import ConfigError
from oban.registry import registry
from oban.signatures import inspect_backoff

pytestmark = pytest.mark.usefixtures("own_registry")
T = TypeVar("T")
Resources = dict[str, Any]


class Client:
    """A class whose instances a lifespan can yield."""


class Speaks(Protocol):
    def speak(self) -> str: ...


class Color(enum.Enum):
    RED = 1


class Fields(TypedDict):
    a: int


ClientName = NewType("ClientName", str)


def defined(process: Any, **options: Any) -> type[Worker]:
    """A worker with this `process`."""
    cls: type[Worker] = type("Defined", (Worker,), {"process": process, "__module__": __name__}, **options)
    return cls


# -- parameters --------------------------------------------------------------------------------------

TYPES_OF_VALUES: list[Any] = [
    *(str, int, float, bool, bytes, dict, list, set, tuple, object, None, Any, datetime, uuid.UUID, Decimal),
    *(Color, Fields, ClientName, Literal["a"], dict[str, Any], list[Client], Mapping[str, Any], str | None),
    *(Client | str, Annotated[int, "count"], "str", "list[Client]", type[Client]),
]


@pytest.mark.parametrize("annotation", TYPES_OF_VALUES, ids=str)
def test_a_required_parameter_for_a_value_is_refused(annotation: Any) -> None:
    async def process(self: Any, job: Job, to: Any) -> None: ...

    process.__annotations__["to"] = annotation
    with pytest.raises(ConfigError, match=r"Defined: nothing fills the parameter to of process.*job\.args"):
        defined(process)


def test_a_required_parameter_without_an_annotation_is_refused() -> None:
    async def process(self, job, http): ...  # type: ignore[no-untyped-def]

    with pytest.raises(ConfigError, match="nothing fills the parameter http of process"):
        defined(process)


TYPES_OF_RESOURCES: list[Any] = [
    *(Client, "Client", Client | None, "Client | None", Speaks, Callable[[], None], Resource[str]),
    *(Resource[Any], "Resource[str]", "NotDefinedAtRunTime", Annotated[Client, "x"]),  # type: ignore[misc]
]


@pytest.mark.parametrize("annotation", TYPES_OF_RESOURCES, ids=str)
def test_a_parameter_for_a_resource_is_accepted(annotation: Any) -> None:
    async def process(self: Any, job: Job, *, http: Any) -> None: ...

    process.__annotations__["http"] = annotation
    cls = defined(process)
    assert cls.takes == {"http"}
    assert [(item.name, item.required) for item in cls.resource_parameters] == [("http", True)]


def test_a_parameter_with_a_default_needs_nothing() -> None:
    async def process(
        self: Any, job: Job, retries: int = 3, http: Client | None = None, cache: Client = injected
    ) -> None: ...

    cls = defined(process)
    assert {item.name: item.required for item in cls.resource_parameters} == {"http": False, "cache": True}


@pytest.mark.parametrize("kind", [AsyncSession, Session, "AsyncSession"])
def test_a_session_under_another_name_is_refused(kind: Any) -> None:
    async def process(self: Any, job: Job, db: Any) -> None: ...

    process.__annotations__["db"] = kind
    with pytest.raises(
        ConfigError, match=r"Defined: the parameter db: \w+ of process must be called session"
    ):
        defined(process)


async def on_loop(self: Any, job: Job, session: Any) -> None: ...


def in_thread(self: Any, job: Job, session: Any) -> None: ...


class OwnSession(Session):
    pass


WRONG_SESSIONS: list[tuple[Any, Any, str]] = [
    (on_loop, Session, "an async process gets an AsyncSession as session, not a Session"),
    (on_loop, "Session | None", "make process a plain def"),
    (on_loop, OwnSession, "gets an AsyncSession as session, not an OwnSession"),
    (in_thread, AsyncSession, "gets a Session as session, not an AsyncSession: .* make process an async def"),
    (in_thread, Annotated[AsyncSession, 1], "not an AsyncSession"),
]


@pytest.mark.parametrize(("process", "annotation", "problem"), WRONG_SESSIONS)
def test_the_wrong_kind_of_session_is_refused(
    process: Any, annotation: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(process.__annotations__, "session", annotation)
    with pytest.raises(ConfigError, match=f"Defined: .*{problem}"):
        defined(process)


@pytest.mark.parametrize("annotation", [Any, Session | AsyncSession, "NotDefinedAtRunTime", Speaks])
def test_a_session_that_may_be_of_the_right_kind_is_accepted(
    annotation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for process in (on_loop, in_thread):
        monkeypatch.setitem(process.__annotations__, "session", annotation)
        assert defined(process).takes == {"session"}


def test_args_under_another_name_are_refused() -> None:
    @dataclass
    class MailArgs:
        to: str

    with pytest.raises(ConfigError, match=r"the parameter mail: .*MailArgs of process must be called args"):

        class Mail(Worker[MailArgs]):
            async def process(self, job: Job, mail: MailArgs) -> None: ...


def test_a_child_process_gets_no_resources() -> None:
    def process(self: Any, job: Job, http: Client) -> None: ...

    with pytest.raises(ConfigError, match="a child process cannot have what the lifespan yields: remove the"
                                          " parameter http, or executor"):  # fmt: skip
        defined(process, executor="process")


# -- what process is ---------------------------------------------------------------------------------


def anything(*args: Any, **kwargs: Any) -> None: ...


async def plain_method(self: Any, job: Job) -> None: ...


def without_self(job: Job) -> None: ...


def without_job(self: Any) -> None: ...


def with_nothing() -> None: ...


def keyword_only(self: Any, *, job: Job) -> None: ...


def two_positional(self: Any, job: Job, other: Client, /) -> None: ...


async def yields_on_loop(self: Any, job: Job) -> AsyncIterator[int]:
    yield 1


def yields(self: Any, job: Job) -> Iterator[int]:
    yield 1


class Callables:
    """Objects that can be called like `process`."""

    async def __call__(self, job: Job) -> None: ...

    def twice(self, job: Job) -> Iterator[int]:
        yield 1


WRONG: list[tuple[Any, str]] = [
    (without_self, r"process cannot be called as process\(job\): too many positional"),
    (without_job, r"process cannot be called as process\(job\): too many positional"),
    (with_nothing, r"process must take self and the job: def process\(self, job\)"),
    (keyword_only, r"process cannot be called as process\(job\)"),
    (two_positional, r"process cannot be called as process\(job\)"),
    (yields, "process is a generator, and would complete without running"),
    (yields_on_loop, "process is a generator"),
    (staticmethod(yields), "process is a generator"),
    (functools.partialmethod(plain_method), "process must be a method, not a partialmethod"),
    (Callables().twice, "process is a generator"),
    (property(lambda self: print), "process must be a method, not a property"),
    (functools.cached_property(lambda self: print), "process must be a method, not a cached_property"),
    (functools.partial(anything, None), "process must be a method, not a partial"),
    (Callables, "process must be a method, not the class Callables"),
    (None, "process must be a method, not a NoneType"),
    (7, "process must be a method, not a int"),
]


@pytest.mark.parametrize(("process", "problem"), WRONG)
def test_a_process_that_cannot_take_the_job_is_refused(process: Any, problem: str) -> None:
    before = list(registry)
    with pytest.raises(ConfigError, match=f"Defined: {problem}"):
        defined(process)
    assert list(registry) == before


async def class_method(cls: Any, job: Job) -> None: ...


async def static_method(job: Job, http: Client) -> None: ...


RIGHT: list[tuple[Any, bool]] = [
    (anything, False),
    (plain_method, True),
    (classmethod(class_method), True),
    (staticmethod(static_method), True),
    (Callables(), True),
]


@pytest.mark.parametrize(("process", "is_async"), RIGHT)
def test_whatever_takes_the_job_is_accepted(process: Any, is_async: bool) -> None:
    cls = defined(process)
    assert cls.is_async is is_async
    assert registry[cls.worker_name] is cls
    assert cls.new().worker == cls.worker_name


# -- bases -------------------------------------------------------------------------------------------


def test_a_class_without_process_is_only_a_base() -> None:
    class Base(Worker, queue="media", max_attempts=3):
        pass

    class Uses(Base):
        async def process(self, job: Job) -> None: ...

    assert Base.worker_name not in registry
    with pytest.raises(ConfigError, match="Base has no method process"):
        Base.new()
    assert (Uses.new().queue, Uses.new().max_attempts) == ("media", 3)


async def test_a_class_without_process_cannot_be_enqueued() -> None:
    class Empty(Worker):
        async def perform(self, job: Job) -> None: ...

    problem = r"Empty has no method process; should perform be called process\?"
    with pytest.raises(ConfigError, match=problem):
        await Empty.enqueue()
    with pytest.raises(ConfigError, match=problem):
        Empty.enqueue_sync()
    with pytest.raises(ConfigError, match="Worker has no method process"):
        Worker.new()


def test_an_abstract_class_is_only_a_base() -> None:
    class Template(Worker, abc.ABC):
        async def process(self, job: Job) -> None:
            await self.send(job)

        @abc.abstractmethod
        async def send(self, job: Job) -> None: ...

    class Mail(Template):
        async def send(self, job: Job) -> None: ...

    with pytest.raises(ConfigError, match="Template is abstract: it does not define send"):
        Template.new()
    assert Template.worker_name not in registry
    assert registry[Mail.worker_name] is Mail


def test_a_class_that_needs_arguments_is_only_a_base() -> None:
    class Fetch(Worker):
        def __init__(self, address: str) -> None:
            self.address = address

        async def process(self, job: Job) -> None: ...

    class FetchNews(Fetch):
        def __init__(self) -> None:
            super().__init__("news")

    with pytest.raises(ConfigError, match=r"Fetch cannot be made without arguments: .* argument: 'address'"):
        Fetch.new()
    assert Fetch.worker_name not in registry
    assert registry[FetchNews.worker_name] is FetchNews


def test_a_generic_base_and_a_mixin_can_have_process_or_not() -> None:
    class Base(Worker[T], Generic[T]):
        pass

    class Processes:
        async def process(self, job: Job) -> None: ...

    class Both(Processes, Base[dict[str, Any]]):
        pass

    assert registry[Both.worker_name] is Both
    hidden = "the process of Processes is hidden by that of Worker: put Processes before Worker"
    with pytest.raises(ConfigError, match=hidden):

        class Wrong(Worker, Processes):
            pass


def test_a_class_that_is_redefined_without_process_is_not_found_any_more() -> None:
    first = defined(plain_method, name="redefined")
    assert registry["redefined"] is first
    type("Defined", (Worker,), {}, name="redefined")
    assert "redefined" not in registry


def test_the_decorator_needs_a_process_as_well() -> None:
    with pytest.raises(ConfigError, match="Empty needs a process method"):

        @worker
        class Empty(Worker):
            pass


# -- functions ---------------------------------------------------------------------------------------


def test_a_function_that_is_a_generator_is_refused() -> None:
    with pytest.raises(ConfigError, match="yields is a generator, which completes without running"):
        job(yields)
    with pytest.raises(ConfigError, match="yields_on_loop is a generator"):
        job(queue="media")(yields_on_loop)


def test_a_function_takes_marked_parameters_from_the_lifespan() -> None:
    @job
    async def send(
        to: str, http: Resource[Client] = injected, *, cache: "Resource[Client]" = injected
    ) -> str:
        return f"{to} {http} {cache}"

    assert send.new("a@b.c").args == {"to": "a@b.c"}
    assert [item.name for item in send.worker.resource_parameters] == ["http", "cache"]
    assert all(item.required for item in send.worker.resource_parameters)


def test_a_function_takes_resources_whose_annotations_cannot_be_evaluated() -> None:
    @job
    async def send(
        to: str,
        http: "Resource[NotDefinedAtRunTime]",  # type: ignore[name-defined]  # noqa: F821
        arguments: "NotDefinedAtRunTime" = injected,  # type: ignore[name-defined]  # noqa: F821
        cache: Resource[Client] | None = None,
    ) -> list[Any]:
        return [to, http, arguments, cache]

    assert [(item.name, item.required) for item in send.worker.resource_parameters] == [
        ("http", True),
        ("arguments", True),
        ("cache", False),
    ]
    # Type checkers want the one without a default.
    made = send.new("a@b.c")  # type: ignore[call-arg]
    found = {"http": 1, "arguments": 2}
    assert asyncio.run(send.worker().process(made, **found)) == ["a@b.c", 1, 2, None]


def test_a_function_can_have_a_parameter_self() -> None:
    @job
    def compare(self: int, other: int) -> int:
        return self - other

    assert compare.new(self=3, other=2).args == {"self": 3, "other": 2}
    assert compare(self=3, other=2) == 1
    assert compare.worker().process(compare.new(3, other=2)) == 1


@pytest.mark.parametrize("annotation", ["Optional[Resource[NotHere]]", "NotHere | oban.Resource[NotHere]"])
def test_a_marked_member_of_a_union_that_cannot_be_evaluated_is_found(annotation: str) -> None:
    def send(to: str, http: Any = None) -> None: ...

    send.__annotations__["http"] = annotation
    assert list(job(send).signature.parameters) == ["to"]
    send.__annotations__["http"] = "NoResource[NotHere]"
    assert list(job(send).signature.parameters) == ["to", "http"]


def test_a_resource_of_a_function_cannot_have_the_name_of_its_args() -> None:
    with pytest.raises(ConfigError, match="a resource cannot be called args"):

        @job
        async def wrong(args: Resource[Client]) -> None: ...


# -- backoff -----------------------------------------------------------------------------------------


async def _works(self: Worker, job: Job) -> None:
    return None


def with_backoff(backoff: Any) -> type[Worker]:
    cls: type[Worker] = type("Defined", (Worker,), {"process": _works, "backoff": backoff})
    return cls


class Callable2:
    def __call__(self, job: Job, exc: BaseException) -> float:
        return 1


@pytest.mark.parametrize(
    ("backoff", "passes"),
    [
        (lambda self, job: 1, None),
        (lambda self, job, factor=2: factor, None),
        (lambda self, job, factor=2, *more: factor, None),
        (lambda self, job, *, factor=2: factor, None),
        (lambda self, job, error: 1, "keyword"),
        (lambda self, job, error=None: 1, "keyword"),
        (lambda self, job, *, error: 1, "keyword"),
        (lambda self, job, factor=2, error=None: 1, "keyword"),
        (lambda self, job, exc: 1, "position"),
        (lambda self, job, error=None, /: 1, "position"),
        (lambda self, job, exc, factor=2: 1, "position"),
        (lambda self, *args: 1, "position"),
        (lambda *args: 1, "position"),
        (lambda self, job, **kwargs: 1, "keyword"),
        (lambda self, *args, **kwargs: 1, "position"),
        (lambda self, error, exc: 1, "position"),
        (staticmethod(lambda job, error: 1), "keyword"),
        (classmethod(lambda cls, job: 1), None),
        (Callable2(), "position"),
    ],
)
def test_a_backoff_gets_the_exception_if_it_takes_it(backoff: Any, passes: str | None) -> None:
    cls = with_backoff(backoff)
    assert inspect_backoff(cls) == passes
    assert inspect_backoff(type("Sub", (cls,), {})) == passes


async def _coroutine(self: Worker, job: Job) -> float:
    return 1


def _generator(self: Worker, job: Job) -> Iterator[float]:
    yield 1


@pytest.mark.parametrize(
    ("backoff", "problem"),
    [
        (_coroutine, "backoff must be a plain method"),
        (_generator, "backoff must be a plain method"),
        (5, "backoff must be a plain method"),
        (lambda self: 1, "too many positional arguments"),
        (lambda self, *, error: 1, "too many positional arguments"),
        (lambda self, job, error, more: 1, "missing a required argument: 'more'"),
        (lambda self, job, *, exc: 1, "missing a required .*'exc'"),
    ],
)
def test_a_backoff_that_cannot_be_called_is_refused(backoff: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^Defined: backoff .*{problem.removeprefix('backoff ')}"):
        with_backoff(backoff)
