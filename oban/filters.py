"""Conditions for `select(Job)` that mean the same on every database.

    select(Job).where(filters.worker(SendEmail), filters.tags("vip"), filters.args("customer", "id") == 7)

Each is an ordinary SQLAlchemy expression, to be combined with `&`, `|`, `~` and others. It is true or false,
never NULL. Everything that is passed, names of keys included, goes to the database as a parameter. `of=`
is `Job` unless an `aliased(Job)` is given.
"""

import operator
import uuid
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

from sqlalchemy import Boolean, ColumnElement, false, not_, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import BigInteger, Text, TypeEngine

from oban import encoding, fields
from oban.dialects.documents import BY_NAME, Documents, step
from oban.errors import InvalidTarget
from oban.models import Job
from oban.types import JobState
from oban.worker import FunctionWorker, Worker

#: `Job` or an `aliased(Job)`.
Of: TypeAlias = Any
Condition = ColumnElement[bool]
_NAMES = list(BY_NAME)


class _ByDatabase(FunctionElement[Any]):
    """The same thing said for each database; the one that is compiled for picks its own."""

    inherit_cache = True


class _Same(FunctionElement[bool]):
    """Whether a document has the value of a column: the document, the column, and the path to it."""

    type = Boolean()
    inherit_cache = True


def _database(compiler: SQLCompiler) -> str:
    name = compiler.dialect.name
    # A statement that is printed is of no database.
    return name if name in BY_NAME else "postgresql"


@compiles(_ByDatabase)
def _render(element: _ByDatabase, compiler: SQLCompiler, **options: Any) -> str:
    said = list(element.clauses)[_NAMES.index(_database(compiler))]
    return f"({compiler.process(said, **options)})"


@compiles(_Same)
def _render_same(element: _Same, compiler: SQLCompiler, **options: Any) -> str:
    document, other, *steps = element.clauses
    said = BY_NAME[_database(compiler)].same(document, steps, other)
    return f"({compiler.process(said, **options)})"


def _by_database(
    say: Callable[[Documents], ColumnElement[Any]], type_: TypeEngine[Any]
) -> ColumnElement[Any]:
    element = _ByDatabase(*(say(BY_NAME[name]) for name in _NAMES))
    element.type = type_
    return element


def worker(*workers: type[Worker[Any]] | FunctionWorker[..., Any] | str, of: Of = Job) -> Condition:
    """Jobs of a worker: its class, its `@job` function or its name; or of one of several."""
    names = [_name(item) for item in _some(workers, "a worker")]
    return cast(Condition, of.worker.in_(names))


def queue(*queues: str, of: Of = Job) -> Condition:
    """Jobs of a queue, or of one of several. Raises `InvalidJob` for what is no queue's name."""
    return cast(Condition, of.queue.in_([fields.queue(item) for item in _some(queues, "a queue")]))


def state(*states: JobState | str, of: Of = Job) -> Condition:
    """Jobs in a state, or in one of several."""
    known = []
    for item in _some(states, "a state"):
        try:
            known.append(JobState(item))
        except ValueError:
            hint = fields.suggestion(item, [state.value for state in JobState])
            raise InvalidTarget(f"{item!r} is not a state{hint}") from None
    return cast(Condition, of.state.in_(known))


def tags(*wanted: str, of: Of = Job) -> Condition:
    """Jobs that have all of some tags, in whatever case these are written."""
    given = _tags(wanted)
    return _by_database(lambda documents: documents.all_of(of.tags, given), Boolean())


def any_tag(*wanted: str, of: Of = Job) -> Condition:
    """Jobs that have at least one of some tags."""
    given = _tags(wanted)
    return _by_database(lambda documents: documents.any_of(of.tags, given), Boolean())


def args(*path: str | int, of: Of = Job) -> "Value":
    """What a job's args hold at a path of keys and, in lists, of places from 0."""
    return Value(of.args, "args", path)


def meta(*path: str | int, of: Of = Job) -> "Value":
    """What a job's meta holds at a path of keys and, in lists, of places from 0."""
    return Value(of.meta, "meta", path)


class Value:
    """What a job's args or meta hold at a path: compare it, and get a condition.

    `==` and `!=` take any JSON value; kinds are kept apart (1 is 1.0, but neither true nor "1").
    None is the null that is written there: where nothing is, only `exists()` tells. `!=` is the opposite of
    `==`, so that jobs with nothing there are different, too. `<`, `<=`, `>` and `>=` take a number, and find
    numbers, or a text, and find texts, ordered by code points. `==` takes a column as well: of integers,
    texts or UUIDs. Raises `InvalidTarget` or `EncodingError`.
    """

    def __init__(self, document: Any, name: str, path: Iterable[str | int]) -> None:
        self._document = document
        self._path = [_step(key, name) for key in path]
        if not self._path or isinstance(self._path[0], int):
            raise InvalidTarget(f"filters.{name} needs a key, and more for what is inside of it")
        self._name = name + "".join(f"[{key!r}]" for key in self._path)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        if isinstance(other, (ColumnElement, QueryableAttribute)):
            return self._same(other)
        value = self._checked(other)
        return self._say(lambda documents: documents.equals(self._document, self._path, value))

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return not_(self == other)

    def __lt__(self, other: float | str) -> Condition:
        return self._compares(operator.lt, other)

    def __le__(self, other: float | str) -> Condition:
        return self._compares(operator.le, other)

    def __gt__(self, other: float | str) -> Condition:
        return self._compares(operator.gt, other)

    def __ge__(self, other: float | str) -> Condition:
        return self._compares(operator.ge, other)

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        raise InvalidTarget(f"{self._name} is no condition by itself: compare it, or ask whether it exists()")

    def in_(self, values: Iterable[Any]) -> Condition:
        """Whether one of some values is there."""
        if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
            raise InvalidTarget(f"a list of values is needed, not {type(values).__name__}")
        return or_(false(), *(self == value for value in values))

    def not_in(self, values: Iterable[Any]) -> Condition:
        """Whether none of some values is there."""
        return not_(self.in_(values))

    def exists(self) -> Condition:
        """Whether anything is there, a null included."""
        return self._say(lambda documents: documents.exists(self._document, self._path))

    def contains(self, value: str | float | bool | None) -> Condition:
        """Whether a list is there that has a text, number, boolean or null in it."""
        checked = self._checked(value)
        if isinstance(checked, (dict, list)):
            raise InvalidTarget(f"{self._name}.contains needs a text, a number, a boolean or None")
        return self._say(lambda documents: documents.holds(self._document, self._path, checked))

    def as_integer(self) -> ColumnElement[int]:
        """The integer that is there, of 18 digits at most, as an expression; NULL where there is none."""
        return _by_database(lambda documents: documents.integer(self._document, self._path), BigInteger())

    def as_text(self) -> ColumnElement[str]:
        """The text that is there, as an expression; NULL where there is none."""
        return _by_database(lambda documents: documents.text(self._document, self._path), Text())

    def _compares(self, compare: Callable[[Any, Any], Any], other: object) -> Condition:
        if isinstance(other, bool) or not isinstance(other, (str, int, float)):
            raise InvalidTarget(f"{self._name} is compared with a number or a text, not {_shown(other)}")
        value = self._checked(other)
        return self._say(lambda documents: documents.compares(self._document, self._path, compare, value))

    def _same(self, column: Any) -> Condition:
        try:
            kind = column.type.python_type
        except NotImplementedError:
            kind = object
        if kind not in (int, str, uuid.UUID):
            raise InvalidTarget(
                f"{self._name} is compared with columns of integers, texts or UUIDs; cast {column} to one"
            )
        element = _Same(self._document, column, *map(step, self._path))
        # So that it can be the condition of a relationship.
        return cast(Condition, element.as_comparison(1, 2))

    def _checked(self, value: object) -> Any:
        if isinstance(value, Value):
            raise InvalidTarget(f"{self._name} cannot be compared with another value of a job")
        return encoding.json_value(value, self._name)

    def _say(self, say: Callable[[Documents], ColumnElement[Any]]) -> Condition:
        return _by_database(say, Boolean())


def _some(given: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    if not given:
        raise InvalidTarget(f"at least {what} is needed; with none the condition would hold for no job")
    return given


def _name(given: object) -> str:
    if isinstance(given, FunctionWorker):
        given = given.worker
    if isinstance(given, type) and issubclass(given, Worker):
        if not given.worker_name:
            raise InvalidTarget("Worker itself has no jobs: name one of its subclasses")
        return given.worker_name
    if isinstance(given, str):
        return fields.worker(given)
    raise InvalidTarget(f"a worker is its class, its @job function or its name, not {_shown(given)}")


def _tags(wanted: tuple[Any, ...]) -> list[str]:
    given = fields.tags(_some(wanted, "a tag"))
    return list(_some(tuple(given), "a tag that is not blank"))


def _step(key: object, name: str) -> str | int:
    if isinstance(key, str):
        return encoding.text(key, f"a key of {name}")
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < 2**31:
        return int(key)
    raise InvalidTarget(f"a path is of texts and of places in lists, from 0: {_shown(key)} is neither")


def _shown(value: object) -> str:
    return encoding.log_safe(repr(value), 60)
