"""`@job`: functions as workers."""

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from oban import callables, display, fields, job_creation, resources
from oban.database.joined import AsyncCaller, SyncCaller
from oban.errors import ConfigError, InvalidJob
from oban.fields import Overrides, WorkerOptions
from oban.models import Job
from oban.registry import registry
from oban.signatures import EXTRA_PARAMETERS
from oban.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")


class FunctionWorker(Generic[P, R]):
    """A function that can be enqueued, created by `@job`. Calling it runs the function itself."""

    def __init__(self, function: Callable[P, R], options: WorkerOptions) -> None:
        if not inspect.isfunction(function):
            raise ConfigError(f"@job needs a function, not {display.shown(function)}")
        if callables.is_generator(function):
            raise ConfigError(
                f"{function.__qualname__} is a generator, which completes without running: remove the yield"
            )
        update_wrapper(self, function)
        self.function: Callable[P, R] = function
        self._whole_signature: inspect.Signature = inspect.signature(function)
        #: The parameters that are annotated as `Resource[…]`, as the worker gets them.
        self.resource_parameters: list[inspect.Parameter] = _resource_parameters(function)
        taken = {parameter.name for parameter in self.resource_parameters}
        parameters = self._whole_signature.parameters.values()
        #: The signature without them, as callers do not pass them.
        self.signature: inspect.Signature = self._whole_signature.replace(
            parameters=[parameter for parameter in parameters if parameter.name not in taken]
        )
        if "session" in self.signature.parameters:
            raise ConfigError(
                f"{function.__qualname__} cannot have a parameter session: enqueue(…, session=…) takes the"
                " caller's transaction; rename it, or for a transaction of the job, write a Worker class"
            )
        self.worker: type[Worker] = _worker_class(self, options)
        self._overrides: Overrides = {}
        if (cron := self.worker._cron) is not None:
            self._check_cron_args(cron.args)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, without a job."""
        return self.function(*args, **kwargs)

    def new(self, /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Create a job that calls the function with these arguments, without enqueueing it.

        Args:
            args: The positional arguments of the function.
            kwargs: The keyword arguments of the function.

        Returns:
            A new job, for `enqueue` or `session.add`.

        Raises:
            InvalidJob: The function does not take these arguments, or they are not JSON values.

        Example:
            `send.new("ann@example.com")`
        """
        return self.worker.new(self._bind(args, kwargs), **self._overrides)

    # A ParamSpec cannot be combined with a keyword of our own: beside `session`, the arguments are not typed.
    @overload
    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job: ...
    @overload
    async def enqueue(self, /, *args: Any, session: AsyncCaller | None, **kwargs: Any) -> Job: ...
    async def enqueue(self, /, *args: Any, **kwargs: Any) -> Job:
        """Create such a job and enqueue it with the `Oban` of the option `oban`.

        With `session=`, type checkers accept any arguments of the function. They check those of
        `oban.enqueue(function.new(…), session=session)`, which does the same.

        Args:
            args: The positional arguments of the function.
            session: The caller's session or connection, to insert the job in its transaction (default: a
                transaction of its own).
            kwargs: The keyword arguments of the function.

        Raises:
            InvalidJob: The function does not take these arguments, or they are not JSON values.
            InstanceNotFound: There is no such `Oban` in this process.
        """
        session: AsyncCaller | None = kwargs.pop("session", None)
        return await self.worker.enqueue(self._bind(args, kwargs), session=session, **self._overrides)

    @overload
    def enqueue_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> Job: ...
    @overload
    def enqueue_sync(self, /, *args: Any, session: SyncCaller | None, **kwargs: Any) -> Job: ...
    def enqueue_sync(self, /, *args: Any, **kwargs: Any) -> Job:
        """Create such a job and enqueue it without `await`, as `Worker.enqueue_sync` does.

        Args:
            args: The positional arguments of the function.
            session: The caller's session or connection (default: a transaction of its own).
            kwargs: The keyword arguments of the function.

        Returns:
            The job.

        Raises:
            InvalidJob: The function does not take these arguments, or they are not JSON values.
            InstanceNotFound: There is no such `SyncOban` or `Oban` in this process.
            WouldDeadlock: It was called on the event loop: use `await enqueue(…)` there.

        Example:
            `send.enqueue_sync("ann@example.com")`
        """
        session: SyncCaller | None = kwargs.pop("session", None)
        return self.worker.enqueue_sync(self._bind(args, kwargs), session=session, **self._overrides)

    def with_options(self, /, **overrides: Unpack[Overrides]) -> "FunctionWorker[P, R]":
        """Return the same function, whose jobs get other fields: `with_options(schedule_in=60).enqueue(…)`.

        Args:
            overrides: `queue`, `priority`, `max_attempts`, `tags`, `meta`, `unique`, `replace`, and
                `scheduled_at` (a datetime with a time zone) or `schedule_in` (seconds or a timedelta). Of the
                last two, the last call decides.

        Returns:
            A copy; the function itself is not changed.

        Raises:
            InvalidJob: A field does not exist, has a wrong value, or is determined by the function (`args`
                and `worker`).
        """
        for field in ("args", "worker"):
            if field in overrides:
                raise InvalidJob(field, f"of {self.worker.worker_name} is not an option")
        other = copy(self)
        checked, before = fields.check(overrides), dict(self._overrides)
        job_creation.check_keys(self.worker, checked.get("unique"))
        if not checked.keys().isdisjoint(fields.TIMES):
            # The last call decides when the job is due.
            before = {field: value for field, value in before.items() if field not in fields.TIMES}
        other._overrides = cast(Overrides, before | checked)
        return other

    def arg_names(self) -> frozenset[str] | None:
        """The keys that the args of a job can have."""
        # Those of `*args` and `**kwargs` are a list and a dict under these names.
        return frozenset(self.signature.parameters)

    def _bind(self, args: Any, kwargs: Any) -> dict[str, Any]:
        try:
            return dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            options = [f"{name}=…" for name in kwargs if self._is_option(name)]
            call = f"{self.function.__name__}.with_options({', '.join(options)})"
            advice = f"; options of a job are set with {call}" if options else ""
            raise InvalidJob("args", f"of {self.worker.worker_name}: {error}{advice}") from None

    def _check_cron_args(self, args: Mapping[str, Any] | None) -> None:
        """Raise `ConfigError` unless the function can be called with the args of periodic jobs."""
        try:
            self._bind((), args or {})
        except InvalidJob as error:
            registry.remove(self.worker.worker_name)
            raise ConfigError(f"{self.function.__qualname__}: cron: {error}") from None

    def _is_option(self, name: str) -> bool:
        return name in Overrides.__annotations__ and name not in self.signature.parameters

    def call(self, arguments: Mapping[str, Any], /, **found: Any) -> Any:
        """Call the function with the args of a job, and with the resources that were found."""
        bound = self._whole_signature.bind_partial()
        unknown = arguments.keys() - self.signature.parameters.keys()
        if unknown:
            raise TypeError(f"{self.worker.worker_name} takes no {', '.join(sorted(unknown))}")
        bound.arguments.update(
            {name: arguments[name] for name in self.signature.parameters if name in arguments} | found
        )
        return self.function(*bound.args, **bound.kwargs)


@overload
def job(function: Callable[P, R], /) -> FunctionWorker[P, R]: ...
@overload
def job(**options: Unpack[WorkerOptions]) -> Callable[[Callable[P, R]], FunctionWorker[P, R]]: ...
def job(function: Callable[..., Any] | None = None, /, **options: Unpack[WorkerOptions]) -> Any:
    """Make a function enqueueable: `@job`, or `@job(queue="mailers", timeout=60)`.

    `send.enqueue("a@b.c")` enqueues a job that calls `send("a@b.c")`. An `async def` runs on the event loop,
    a plain `def` in a thread. The function gets its job from `current_job()`, and can return and raise what
    `Worker.process` can.

    Args:
        options: The options of `Worker`.

    Raises:
        ConfigError: It is not a function, it has a parameter `session`, or an option does not exist or has a
            wrong value.
    """
    if function is not None:
        return FunctionWorker(function, options)
    return lambda function: FunctionWorker(function, options)


def _resource_parameters(function: Any) -> list[inspect.Parameter]:
    found = []
    for parameter in inspect.signature(function).parameters.values():
        annotation = resources.resolve(parameter.annotation, function.__globals__)
        if parameter.default is resources.injected or resources.is_marked(annotation):
            if parameter.name in EXTRA_PARAMETERS:
                raise ConfigError(f"{function.__qualname__}: a resource cannot be called {parameter.name}")
            found.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation))
    return found


def _worker_class(owner: FunctionWorker[..., Any], options: WorkerOptions) -> type[Worker]:
    function = owner.function
    if inspect.iscoroutinefunction(function):

        async def process(_self: Worker, _job: Job, /, **found: Any) -> Any:
            return await owner.call(_job.args, **found)
    else:

        def process(_self: Worker, _job: Job, /, **found: Any) -> Any:  # type: ignore[misc]
            return owner.call(_job.args, **found)

    # The worker reads from the signature which resources the function takes.
    taken = [*inspect.signature(process).parameters.values()][:2] + owner.resource_parameters
    process.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]

    members = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "process": process,
        "_arg_names": classmethod(lambda _: owner.arg_names()),
    }
    return type(function.__name__, (Worker,), members, **options)
