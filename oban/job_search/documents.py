"""Conditions on args and meta, by paths as people write them: `customer.id`, `items.0.sku`."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import or_

from oban import filters
from oban.errors import InvalidArgument
from oban.filters import Condition

#: `filters.args` or `filters.meta`.
Document: TypeAlias = Callable[..., filters.Value]


class TooManyNumbers(InvalidArgument):
    """A path has so many numbers, each an index or a key, that its condition would be too large."""


def equals(document: Document, keys: Sequence[str], value: Any) -> Condition:
    """Whether the value at a path equals a JSON value. Raises `InvalidArgument`."""
    return or_(*(document(*path) == value for path in paths(keys)))


def exists(document: Document, keys: Sequence[str]) -> Condition:
    """Whether there is a value at a path. Raises `InvalidArgument`."""
    return or_(*(document(*path).exists() for path in paths(keys)))


def contained(
    document: Document, subset: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[Condition]:
    """The conditions for a document that contains all of another one."""
    for key, value in subset.items():
        if isinstance(value, dict) and value:
            yield from contained(document, value, (*path, key))
        else:
            yield document(*path, key) == value


def paths(keys: Sequence[str]) -> Iterator[tuple[str | int, ...]]:
    """What a path can mean: a number is the index of a list, or a key.

    Raises:
        TooManyNumbers: More than 4 keys are numbers, of which each doubles the condition.
    """
    first, *further = keys
    steps: list[tuple[str | int, ...]] = [
        (key, int(key)) if re.fullmatch(r"\d{1,9}", key, re.ASCII) else (key,) for key in further
    ]
    if sum(len(each) > 1 for each in steps) > 4:
        raise TooManyNumbers(f"the path {'.'.join(keys)} has more than 4 numbers")
    for rest in itertools.product(*steps):
        yield (first, *rest)
