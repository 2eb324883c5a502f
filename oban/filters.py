"""Conditions for `select(Job)` that mean the same on every database.

    select(Job).where(filters.worker(SendEmail), filters.tags("vip"), filters.args("customer", "id") == 7)

Each filter returns an ordinary SQLAlchemy expression, to be combined with `&`, `|`, `~` and your own
conditions. It is always true or false, never NULL. All arguments, keys included, are sent as parameters.
For an alias of `Job`, pass it as `of=`.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias, cast

from oban import display, fields, registry
from oban.dialects import portable
from oban.dialects.portable import Condition as Condition
from oban.document_values import Value as Value
from oban.errors import InvalidArgument, InvalidJob
from oban.job_function import FunctionWorker
from oban.models import Job
from oban.types import JobState, parse_state
from oban.worker import Worker

#: `Job` or an `aliased(Job)`.
Of: TypeAlias = Any


def worker(*workers: type[Worker[Any]] | FunctionWorker[..., Any] | str, of: Of = Job) -> Condition:
    """Jobs of a worker, or of any of several.

    Args:
        workers: Worker classes, `@job` functions or names of workers. A class or a function also finds the
            jobs under its aliases.
        of: `Job` or an `aliased(Job)`.

    Returns:
        A condition for `select(Job).where(…)`.

    Raises:
        InvalidArgument: No worker is passed, or an argument is not a worker.
        InvalidJob: A name is blank or longer than 255 characters.

    Example:
        `select(Job).where(filters.worker(Report))`
    """
    names = [name for item in _at_least_one(workers, "a worker") for name in worker_names(item)]
    return cast(Condition, of.worker.in_(names))


def queue(*queues: str, of: Of = Job) -> Condition:
    """Jobs in a queue, or in any of several.

    Args:
        queues: Names of queues.
        of: `Job` or an `aliased(Job)`.

    Returns:
        A condition for `select(Job).where(…)`.

    Raises:
        InvalidArgument: No queue is passed.
        InvalidJob: An argument cannot be the name of a queue.

    Example:
        `select(Job).where(filters.queue("media", "mailers"))`
    """
    names = [fields.queue(item) for item in _at_least_one(queues, "a queue")]
    return cast(Condition, of.queue.in_(names))


def state(*states: JobState | str, of: Of = Job) -> Condition:
    """Jobs in a state, or in any of several.

    Args:
        states: Each a `JobState` or its value, such as "retryable".
        of: `Job` or an `aliased(Job)`.

    Returns:
        A condition for `select(Job).where(…)`.

    Raises:
        InvalidArgument: No state is passed, or there is no state of that name.

    Example:
        `select(Job).where(filters.state("retryable", "discarded"))`
    """
    known = []
    for item in _at_least_one(states, "a state"):
        try:
            known.append(parse_state(item))
        except InvalidJob as error:
            raise InvalidArgument(str(error)) from None
    return cast(Condition, of.state.in_(known))


def tags(*wanted: str, of: Of = Job) -> Condition:
    """Jobs that have all of these tags.

    Args:
        wanted: Tags, in upper or lower case; surrounding spaces are ignored.
        of: `Job` or an `aliased(Job)`.

    Returns:
        A condition for `select(Job).where(…)`.

    Raises:
        InvalidArgument: No tag is passed, or only blank ones.
        InvalidJob: An argument cannot be a tag.

    Example:
        `select(Job).where(filters.tags("vip", "eu"))`
    """
    checked = _tags(wanted)
    return portable.condition(lambda documents: documents.has_all(of.tags, checked))


def any_tag(*wanted: str, of: Of = Job) -> Condition:
    """Jobs that have at least one of these tags.

    Args:
        wanted: Tags, in upper or lower case; surrounding spaces are ignored.
        of: `Job` or an `aliased(Job)`.

    Returns:
        A condition for `select(Job).where(…)`.

    Raises:
        InvalidArgument: No tag is passed, or only blank ones.
        InvalidJob: An argument cannot be a tag.

    Example:
        `select(Job).where(filters.any_tag("vip", "eu"))`
    """
    checked = _tags(wanted)
    return portable.condition(lambda documents: documents.has_any(of.tags, checked))


def args(*path: str | int, of: Of = Job) -> Value:
    """The value at a path in a job's args, to be compared.

    Args:
        path: A key, then the keys and, in lists, the indexes (from 0) that lead to the value.
        of: `Job` or an `aliased(Job)`.

    Returns:
        A `Value`, which has to be compared to be a condition.

    Raises:
        InvalidArgument: The path does not begin with a key, or has neither a key nor an index in it.
        EncodingError: A key cannot be stored in any database, so no job has it.

    Example:
        `select(Job).where(filters.args("customer", "id") == 7)`
    """
    return Value(of.args, "args", path)


def meta(*path: str | int, of: Of = Job) -> Value:
    """The value at a path in a job's meta, to be compared.

    Args:
        path: A key, then the keys and, in lists, the indexes (from 0) that lead to the value.
        of: `Job` or an `aliased(Job)`.

    Returns:
        A `Value`, which has to be compared to be a condition.

    Raises:
        InvalidArgument: The path does not begin with a key, or has neither a key nor an index in it.
        EncodingError: A key cannot be stored in any database, so no job has it.

    Example:
        `select(Job).where(filters.meta("tenant") == "acme")`
    """
    return Value(of.meta, "meta", path)


def _at_least_one(items: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    if not items:
        raise InvalidArgument(f"at least {what} is needed; without one, no job would match")
    return items


def worker_names(worker: object) -> Iterable[str]:
    """The names that jobs of a worker have in their rows; raises `InvalidArgument` or `InvalidJob`."""
    if isinstance(worker, FunctionWorker):
        worker = worker.worker
    if isinstance(worker, type) and issubclass(worker, Worker):
        if not worker.worker_name:
            raise InvalidArgument("Worker itself has no jobs: pass one of its subclasses")
        return registry.names(worker)
    if isinstance(worker, str):
        return (fields.worker(worker),)
    raise InvalidArgument(
        f"a worker is its class, its @job function or its name, not {display.shown(worker, 60)}"
    )


def _tags(wanted: tuple[Any, ...]) -> list[str]:
    checked = fields.tags(_at_least_one(wanted, "a tag"))
    return list(_at_least_one(tuple(checked), "a tag that is not blank"))
