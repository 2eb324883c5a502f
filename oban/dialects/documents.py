"""What `oban.filters` needs to know about JSON documents and tags, which each database writes differently."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, Text, literal

#: Keys of objects and indexes of lists, from the outside in.
Path = Sequence[str | int]
Compare = Callable[[Any, Any], ColumnElement[bool]]


def step(key: str | int | ColumnElement[Any]) -> ColumnElement[Any]:
    """One step of a path as a bound parameter: `Text` for a key, `Integer` for an index."""
    if isinstance(key, ColumnElement):
        return key
    return literal(key, Text() if isinstance(key, str) else Integer())


class Documents(ABC):
    """Conditions and values at a path in the JSON column `document`, and conditions on a list of tags.

    Every condition is true or false, never NULL: a missing value, or one of another JSON type, does not
    match. A document that is not valid JSON, or is not an object, counts as `{}`.
    """

    @abstractmethod
    def equals(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        """Whether the value at the path is this JSON value."""

    @abstractmethod
    def equals_column(self, document: Any, steps: Sequence[Any], column: Any) -> ColumnElement[bool]:
        """Whether the value at the path equals a column of type Integer, Text or Uuid.

        `steps` is the path, each made by `step`.
        """

    @abstractmethod
    def compares(self, document: Any, path: Path, compare: Compare, value: Any) -> ColumnElement[bool]:
        """Whether the value at the path is a number (a string) for which `compare` holds, as `operator.lt`.

        Strings are ordered by code points.
        """

    @abstractmethod
    def exists(self, document: Any, path: Path) -> ColumnElement[bool]:
        """Whether there is a value at the path; a JSON null is one."""

    @abstractmethod
    def contains(self, document: Any, path: Path, value: Any) -> ColumnElement[bool]:
        """Whether the value at the path is a list with this null, boolean, number or string in it."""

    @abstractmethod
    def integer(self, document: Any, path: Path) -> ColumnElement[int]:
        """The value at the path if it is an integer of up to 18 digits, else NULL."""

    @abstractmethod
    def string(self, document: Any, path: Path) -> ColumnElement[str]:
        """The value at the path if it is a string, else NULL."""

    @abstractmethod
    def has_all(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        """Whether a list of strings has all of some strings."""

    @abstractmethod
    def has_any(self, tags: Any, wanted: list[str]) -> ColumnElement[bool]:
        """Whether a list of strings has at least one of some strings."""

    @abstractmethod
    def stored_size(self, document: Any) -> ColumnElement[int]:
        """About how many bytes a document or a list takes in the table."""

    @abstractmethod
    def has_part(self, tags: Any, text: str) -> ColumnElement[bool]:
        """Whether any of a list of strings contains a text, in upper or lower case."""
