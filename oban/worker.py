"""Workers: the classes and functions that run jobs, and the registry by which a row finds its own.

A worker's name in the database is `module.QualifiedName` unless `name=` gives another. Only
registered names run: nothing is ever imported because a row says so.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from copy import deepcopy
from datetime import timedelta
from functools import update_wrapper
from typing import Any, ClassVar, Generic, ParamSpec, Unpack, cast, overload

from typing_extensions import TypeVar

from oban import arguments, backoff, encoding, fields, instances
from oban.arguments import Arguments
from oban.database.aio import AsyncCaller
from oban.database.sync import SyncCaller
from oban.errors import ConfigError, InvalidJob, UnknownWorker
from oban.fields import Overrides, WorkerOptions
from oban.models import Job

P = ParamSpec("P")
R = TypeVar("R")
#: What the args of a worker's jobs are.
A = TypeVar("A", default=Mapping[str, Any])

EXECUTORS = ("thread", "process")
#: What `process` may take beside the job, as parameters of these names.
TAKEN = ("args", "session")


class Worker(Generic[A]):
    """Base of worker classes: define `process(self, job)`, async or plain, and pass options.

    `class SendEmail(Worker[EmailArgs])` declares the args of its jobs: a dataclass, a TypedDict or a pydantic
    model, which needs `oban-sqlalchemy[pydantic]`. `new` and `enqueue` take one then, and a parameter `args`
    of `process` gets it back; `job.args` is the plain dict. Without a declared type `args` gets that dict.

    Options of the class statement: `queue` (default "default"), `priority` (0), `max_attempts`
    (20), `tags`, `meta`, `name` (the name in the database) and `oban` (the name of the instance
    that `enqueue` uses, default "Oban"). A misspelt option raises `ConfigError`.

    `timeout` (seconds or a timedelta) limits each attempt. An async `process` is interrupted where it
    awaits; one in a thread cannot be: it is told through `job.cancelled()`, and the attempt fails when it
    ends. `executor` says where a plain `process` runs: "thread" or "process".

    A `process` with a parameter `session` gets an `AsyncSession`, a plain one a `Session`: what it writes is
    committed together with the job's completion, or rolled back. Not with `executor="process"`.

    `process` may return `Cancel`, `Snooze` or `Record`; anything else completes the job, and an
    exception makes it retry after `backoff(job)` seconds. A plain `def process` runs in a thread unless
    `executor` says otherwise.
    """

    worker_name: ClassVar[str] = ""
    #: Whether `process` runs on the event loop.
    is_async: ClassVar[bool] = False
    #: Whether it runs in a process of its own rather than in a thread.
    in_process: ClassVar[bool] = False
    #: Which of `TAKEN` the parameters of `process` name, beside the job.
    takes: ClassVar[frozenset[str]] = frozenset()
    _options: ClassVar[Mapping[str, Any]] = {}
    #: The fields of a new job before it gets its own; those of them that have to be copied.
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _mutable: ClassVar[Mapping[str, Any]] = {}
    _oban: ClassVar[str] = "Oban"
    _timeout: ClassVar[float | None] = None
    #: The type that stands in `Worker[…]`, and what reads and writes args of that type.
    _declared: ClassVar[Any] = None
    _arguments: ClassVar[Arguments | None] = None

    def __init_subclass__(cls, **options: Unpack[WorkerOptions]) -> None:
        super().__init_subclass__()
        known = [*WorkerOptions.__annotations__]
        for option in options:
            if option not in known:
                raise ConfigError(
                    f"{cls.__qualname__}: unknown option {option!r}{fields.suggestion(option, known)}"
                )
        name, oban = options.pop("name", None), options.pop("oban", None)
        timeout, executor = options.pop("timeout", None), options.pop("executor", None)
        try:
            cls._options = {**cls._options, **fields.check(options)}
            cls.worker_name = fields.worker(name or f"{_module(cls)}.{cls.__qualname__}")
            if timeout is not None:
                cls._timeout = fields.timeout(timeout)
            cls._mutable = {field: cls._options[field] for field in ("tags", "meta") if field in cls._options}
            cls._defaults = {**cls._options, "worker": cls.worker_name}
        except InvalidJob as error:
            raise ConfigError(f"{cls.__qualname__}: {error}") from None
        if oban is not None:
            cls._oban = oban
        cls.is_async = inspect.iscoroutinefunction(cls.process)
        cls.takes = _taken(cls.process)
        said = arguments.declared(cls, Worker, cls._declared)
        if said is not cls._declared:
            cls._declared, cls._arguments = said, arguments.make(said, cls.__qualname__)
        if "args" in cls.takes:
            arguments.check_parameter(cls.process, said if cls._arguments else dict, cls.__qualname__)
        if executor is not None:
            if executor not in EXECUTORS:
                raise ConfigError(
                    f"{cls.__qualname__}: executor must be {' or '.join(EXECUTORS)}, not {executor!r}"
                )
            cls.in_process = executor == "process"
        if cls.in_process and "session" in cls.takes:
            raise ConfigError(
                f"{cls.__qualname__}: a process of its own cannot have the job's session: leave out the"
                " parameter session, or executor"
            )
        if cls.is_async and (executor or cls.in_process):
            raise ConfigError(
                f"{cls.__qualname__}: an async process runs on the event loop; executor is for a plain one"
            )
        for method in ("backoff", "timeout"):
            given = getattr(cls, method)
            if not callable(given) or inspect.iscoroutinefunction(given):
                raise ConfigError(f"{cls.__qualname__}: {method} must be a plain method")
        registry.add(cls)

    def process(self, job: Job, *args: Any, **kwargs: Any) -> Any:
        """Do the work of one job. May be `async def`.

        Overridden, it takes the job and any of `TAKEN` by name.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no process method")

    def backoff(self, job: Job) -> float:
        """Seconds until the next attempt, after attempt number `job.attempt` failed."""
        return backoff.default(job.attempt, job.max_attempts)

    def timeout(self, job: Job) -> float | timedelta | None:
        """How long an attempt may take, in seconds; None for ever. The option `timeout` unless overridden.

        What is no positive, finite number of seconds is logged, and the job runs without a limit.
        """
        return self._timeout

    @classmethod
    def new(cls, args: A | None = None, **overrides: Unpack[Overrides]) -> Job:
        """A job for this worker, not enqueued yet.

        `overrides` are fields of the job: queue, priority, max_attempts, tags, meta, and
        scheduled_at (an aware datetime) or schedule_in (seconds or a timedelta). Where a type is declared,
        a dict that can be parsed will do, too. Raises `InvalidJob`.
        """
        if cls._arguments is not None:
            given = cls._arguments.dump(args, cls.worker_name)
        else:
            given = {} if args is None else fields.args(args)
        values = {**cls._defaults, "args": given}
        if cls._mutable:
            # Not the same list or dict in every job.
            values |= deepcopy(cls._mutable)
        if overrides:
            values |= fields.check(overrides)
        return Job._from_checked(values)

    @classmethod
    def args_of(cls, job: Job) -> A:
        """The args of a job as the declared type; the dict without one. Raises `InvalidJob`."""
        if cls._arguments is None:
            return cast(A, job.args)
        return cast(A, cls._arguments.parse(job.args, cls.worker_name))

    @classmethod
    async def enqueue(
        cls, args: A | None = None, session: AsyncCaller | None = None, **overrides: Unpack[Overrides]
    ) -> Job:
        """Enqueue a job for this worker, in the caller's transaction if `session` is given.

        Raises `InvalidJob`, and `InstanceNotFound` if no `Oban` of the worker's name exists.
        """
        job = cls.new(args, **overrides)
        enqueued: Job = await instances.async_clients.get(cls._oban).enqueue(job, session=session)
        return enqueued

    @classmethod
    def enqueue_sync(
        cls, args: A | None = None, session: SyncCaller | None = None, **overrides: Unpack[Overrides]
    ) -> Job:
        """As `enqueue`, by the `SyncOban` of the worker's instance name."""
        job = cls.new(args, **overrides)
        enqueued: Job = instances.sync_clients.get(cls._oban).enqueue(job, session=session)
        return enqueued


def _taken(process: Callable[..., Any]) -> frozenset[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(process).parameters.values()
    return frozenset(parameter.name for parameter in parameters if parameter.kind in named) & {*TAKEN}


def _module(cls: type[Any]) -> str:
    # What a child process calls the main module of its parent.
    return "__main__" if cls.__module__ == "__mp_main__" else cls.__module__


class Registry:
    """Worker classes by the name that rows carry."""

    def __init__(self) -> None:
        self._workers: dict[str, type[Worker[Any]]] = {}

    def add(self, worker: type[Worker[Any]]) -> None:
        """Register a class; a later one of the same name (a reloaded module) replaces it."""
        self._workers[worker.worker_name] = worker

    def get(self, name: str) -> type[Worker[Any]]:
        """The class of a name; raises `UnknownWorker`."""
        try:
            return self._workers[name]
        except KeyError:
            raise UnknownWorker(
                f"no worker named {encoding.log_safe(repr(name))} is registered in this process; import the"
                " module that defines it before starting"
            ) from None

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._workers)


#: Every worker that this process has defined.
registry: Registry = Registry()


@overload
def worker(cls: type[Any], /) -> type[Worker]: ...
@overload
def worker(
    *, args: type[A] | None = None, **options: Unpack[WorkerOptions]
) -> Callable[[type[Any]], type[Worker[A]]]: ...
def worker(
    cls: type[Any] | None = None, /, *, args: type[Any] | None = None, **options: Unpack[WorkerOptions]
) -> Any:
    """Make a worker of a plain class with `process`: `@worker`, or `@worker(…)` with options as for `Worker`.

    `args` is the type of its args, as in `Worker[…]`. mypy does not see that the class is a worker then:
    derive from `Worker` where that counts.
    """

    def decorate(cls: type[Any]) -> type[Worker[Any]]:
        if not callable(getattr(cls, "process", None)):
            raise ConfigError(f"{cls.__qualname__} needs a process method")
        members = {
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
        }
        generic: Any = Worker
        bases = (
            (cls,) if issubclass(cls, Worker) and args is None else (cls, generic[args] if args else Worker)
        )
        # Passes keywords on to __init_subclass__, which registers the class.
        return types.new_class(cls.__name__, bases, {**options}, lambda namespace: namespace.update(members))

    return decorate if cls is None else decorate(cls)


class FunctionWorker(Generic[P, R]):
    """A function that can be enqueued; made by `@job`. Calling it runs the function itself."""

    def __init__(self, function: Callable[P, R], options: WorkerOptions) -> None:
        if not inspect.isfunction(function):
            raise ConfigError(f"@job needs a function, not {function!r}")
        update_wrapper(self, function)
        self.function: Callable[P, R] = function
        self.signature: inspect.Signature = inspect.signature(function)
        self.worker: type[Worker] = _class_for(self, options)
        self._overrides: Overrides = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, here and now."""
        return self.function(*args, **kwargs)

    def new(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """A job that will call the function with these arguments, not enqueued yet.

        Raises `InvalidJob` when the function does not take them, or when they are not JSON.
        """
        return self.worker.new(self._bind(args, kwargs), **self._overrides)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue a job that will call the function with these arguments."""
        return await self.worker.enqueue(self._bind(args, kwargs), **self._overrides)

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """As `enqueue`, by a `SyncOban`."""
        return self.worker.enqueue_sync(self._bind(args, kwargs), **self._overrides)

    def with_options(self, **overrides: Unpack[Overrides]) -> "FunctionWorker[P, R]":
        """The same function with other job fields, such as `schedule_in=60` or `queue="slow"`.

        Raises `InvalidJob`, also for `args` and `worker`: the function decides about these.
        """
        for field in ("args", "worker"):
            if field in overrides:
                raise InvalidJob(field, f"of {self.worker.worker_name} is not an option")
        other: FunctionWorker[P, R] = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._overrides = cast(Overrides, {**self._overrides, **fields.check(overrides)})
        return other

    def _bind(self, args: Any, kwargs: Any) -> dict[str, Any]:
        try:
            return dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise InvalidJob("args", f"of {self.worker.worker_name}: {error}") from None

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with the arguments that a job carries."""
        bound = self.signature.bind_partial()
        unknown = arguments.keys() - self.signature.parameters.keys()
        if unknown:
            raise TypeError(f"{self.worker.worker_name} takes no {', '.join(sorted(unknown))}")
        bound.arguments.update(
            {name: arguments[name] for name in self.signature.parameters if name in arguments}
        )
        return self.function(*bound.args, **bound.kwargs)


@overload
def job(function: Callable[P, R], /) -> FunctionWorker[P, R]: ...
@overload
def job(**options: Unpack[WorkerOptions]) -> Callable[[Callable[P, R]], FunctionWorker[P, R]]: ...
def job(function: Callable[..., Any] | None = None, /, **options: Unpack[WorkerOptions]) -> Any:
    """Make a function enqueueable: `send.enqueue("a@b.c")`. `@job`, or with options as for `Worker`.

    The arguments must be JSON. Inside, `current_job()` is the job.
    """
    if function is not None:
        return FunctionWorker(function, options)
    return lambda function: FunctionWorker(function, options)


def _class_for(owner: FunctionWorker[..., Any], options: WorkerOptions) -> type[Worker]:
    function = owner.function
    if inspect.iscoroutinefunction(function):

        async def process(self: Worker, job: Job) -> Any:
            return await owner.call(job.args)
    else:

        def process(self: Worker, job: Job) -> Any:  # type: ignore[misc]
            return owner.call(job.args)

    members = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "process": process,
    }
    return type(function.__name__, (Worker,), members, **options)


running: ContextVar[Job | None] = ContextVar("oban.running", default=None)


def current_job() -> Job | None:
    """The job that runs in this context: in async code, threads and child processes; None outside of one."""
    return running.get()
