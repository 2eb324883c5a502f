"""`Value`: the value at a path in the args or meta of jobs, and the conditions that comparing it returns."""

import operator
import uuid
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, false, not_, or_
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.types import BigInteger, Text

from oban import arguments, display, encoding
from oban.dialects import portable
from oban.dialects.portable import Condition
from oban.errors import EncodingError, InvalidArgument


class Value:
    """The value at a path in args or meta. Comparing it returns a condition.

    `==` and `!=` take any JSON value, with None for a JSON null. Types are distinguished: 1 equals 1.0, but
    neither True nor "1". `!=` is the opposite of `==`, so it also finds jobs without a value at the path;
    only `exists()` tells these from a null. `<`, `<=`, `>` and `>=` compare numbers with a number, and
    strings with a string or a date, in the order of code points. `==` and `!=` also take a column of
    integers, strings or UUIDs.

    Any other value, such as a UUID, a datetime or a dataclass, is converted to the JSON that typed args store
    for it by default.

    Comparisons raise `InvalidArgument` for an operand that they do not take, and `EncodingError` for a
    value that neither is JSON nor can be converted.
    """

    def __init__(self, document: Any, name: str, path: Iterable[str | int]) -> None:
        self._document = document
        self._path = [_step(key, name) for key in path]
        if not self._path or isinstance(self._path[0], int):
            raise InvalidArgument(f"filters.{name} needs a key, then the path inside of its value, if any")
        self._name = name + "".join(f"[{key!r}]" for key in self._path)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        if isinstance(other, (ColumnElement, QueryableAttribute)):
            return self._equals_column(other)
        value = self._checked(other)
        return portable.condition(lambda documents: documents.equals(self._document, self._path, value))

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return not_(self == other)

    def __lt__(self, other: float | str | date) -> Condition:
        return self._compares(operator.lt, other)

    def __le__(self, other: float | str | date) -> Condition:
        return self._compares(operator.le, other)

    def __gt__(self, other: float | str | date) -> Condition:
        return self._compares(operator.gt, other)

    def __ge__(self, other: float | str | date) -> Condition:
        return self._compares(operator.ge, other)

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        raise InvalidArgument(f"{self._name} is not a condition: compare it, or call exists()")

    def in_(self, values: Iterable[Any]) -> Condition:
        """Whether the value equals any of some values.

        Args:
            values: JSON values.

        Returns:
            A condition; false for every job if there are no values.

        Raises:
            InvalidArgument: `values` is not iterable, or is a string or a dict.

        Example:
            `filters.args("customer").in_([7, 8])`
        """
        if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
            raise InvalidArgument(f"a list of values is needed, not {type(values).__name__}")
        return or_(false(), *(self == value for value in values))

    def not_in(self, values: Iterable[Any]) -> Condition:
        """The opposite of `in_`: it also finds jobs without a value at the path.

        Args:
            values: JSON values.

        Returns:
            A condition.

        Raises:
            InvalidArgument: `values` is not iterable, or is a string or a dict.

        Example:
            `filters.args("customer").not_in([7, 8])`
        """
        return not_(self.in_(values))

    def exists(self) -> Condition:
        """Whether there is a value at the path; a JSON null is one.

        Returns:
            A condition.

        Example:
            `filters.args("coupon").exists()`
        """
        return portable.condition(lambda documents: documents.exists(self._document, self._path))

    def contains(self, value: object) -> Condition:
        """Whether the value is a list with this item in it.

        Args:
            value: A string, a number, a boolean or None.

        Returns:
            A condition.

        Raises:
            InvalidArgument: `value` is a list or a dict, or is converted to one.

        Example:
            `filters.args("labels").contains("urgent")`
        """
        checked = self._checked(value)
        if isinstance(checked, (dict, list)):
            raise InvalidArgument(f"{self._name}.contains needs a string, a number, a boolean or None")
        return portable.condition(lambda documents: documents.contains(self._document, self._path, checked))

    def as_integer(self) -> ColumnElement[int]:
        """The value, to select or order by, if it is an integer of up to 18 digits; else NULL.

        Returns:
            An expression, not a condition.

        Example:
            `select(Job).order_by(filters.args("customer").as_integer())`
        """
        return portable.per_database(
            lambda documents: documents.integer(self._document, self._path), BigInteger()
        )

    def as_text(self) -> ColumnElement[str]:
        """The value, to select or order by, if it is a string; else NULL.

        Returns:
            An expression, not a condition.

        Example:
            `select(Job).order_by(filters.args("name").as_text())`
        """
        return portable.per_database(lambda documents: documents.string(self._document, self._path), Text())

    def _compares(self, compare: Callable[[Any, Any], Any], other: object) -> Condition:
        # The strings of other types, such as datetimes and decimals, are not in the order of their values.
        is_date = isinstance(other, date) and not isinstance(other, datetime)
        if isinstance(other, bool) or not (is_date or isinstance(other, (str, int, float))):
            raise InvalidArgument(
                f"{self._name} is ordered by a number, a string or a date, not by {display.shown(other, 60)}"
            )
        value = self._checked(other)
        return portable.condition(
            lambda documents: documents.compares(self._document, self._path, compare, value)
        )

    def _equals_column(self, column: Any) -> Condition:
        try:
            kind = column.type.python_type
        except NotImplementedError:
            kind = object
        if kind not in (int, str, uuid.UUID):
            raise InvalidArgument(
                f"{self._name} is compared with columns of integers, strings or UUIDs; cast {column} to one"
            )
        return portable.equals_column(self._document, self._path, column)

    def _checked(self, value: object) -> Any:
        if isinstance(value, Value):
            raise InvalidArgument(f"{self._name} cannot be compared with another value of a job")
        try:
            return encoding.json_value(value, self._name)
        except EncodingError:
            converted = arguments.stored_form(value)
            if converted is value:
                raise
        return encoding.json_value(converted, self._name)


def _step(key: object, name: str) -> str | int:
    if isinstance(key, str):
        return encoding.string(key, f"a key of {name}")
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < 2**31:
        return int(key)
    raise InvalidArgument(
        f"a path consists of strings and of list indexes from 0: {display.shown(key, 60)} is neither;"
        f" what the value is compared with comes after the path, as in filters.{name}('id') == 7"
    )
