"""One cache of compiled statements for all engines of a process.

Most tests make an engine, or several, and would compile the same statements again: a quarter of their time.
"""

from collections.abc import Iterator, MutableMapping, Set
from functools import cache
from inspect import getattr_static
from typing import Any

from sqlalchemy import Dialect, Engine
from sqlalchemy.orm import Mapper
from sqlalchemy.util import LRUCache, memoized_property

#: Attributes of a dialect with other values follow from its class and from these, or are used by connections.
_PLAIN = (bool, int, str, tuple, type(None))
#: Attributes that are part of compiled statements, as bound values and results are converted with them.
_CONVERTERS = ("_json_serializer", "_json_deserializer")
#: More than the tests of a file compile.
_SIZE = 3000


class _SharedCache(MutableMapping[Any, Any]):
    """Compiled statements, which all dialects find that would compile them alike."""

    def __init__(self) -> None:
        self._compiled: LRUCache[Any, Any] = LRUCache(_SIZE)

    def __getitem__(self, key: Any) -> Any:
        return self._compiled[_shared(key)]

    def __setitem__(self, key: Any, compiled: Any) -> None:
        self._compiled[_shared(key)] = compiled

    def get(self, key: Any, default: Any = None) -> Any:
        return self._compiled.get(_shared(key), default)

    def __delitem__(self, key: Any) -> None:
        del self._compiled[_shared(key)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._compiled)

    def __len__(self) -> int:
        return len(self._compiled)


def _shared(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The key of a statement with what matters of the dialect instead of the dialect."""
    dialect, *statement = key
    return _alike(dialect), *statement


def _alike(dialect: Dialect) -> tuple[Any, ...]:
    # A copy, as another thread can store a derived attribute at the same time.
    own = dict(vars(dialect))
    kind: Any = type(dialect)
    plain = frozenset(
        (name, value)
        for name, value in own.items()
        if isinstance(value, _PLAIN) and name not in _memoized(kind)
    )
    return kind, plain, *(own.get(name) for name in _CONVERTERS)


@cache
def _memoized(dialect: type[Dialect]) -> Set[str]:
    """The attributes that the dialects of a class derive from others, and store when they are first used."""
    return {name for name in dir(dialect) if isinstance(getattr_static(dialect, name), memoized_property)}


def share_compiled_statements() -> None:
    """Let all engines and mappers use one cache, except for engines that are to have none."""
    shared = _SharedCache()

    def store(engine: Engine, own: object) -> None:
        vars(engine)["_compiled_cache"] = shared if own is not None else None

    engines: Any = Engine
    engines._compiled_cache = property(lambda engine: vars(engine)["_compiled_cache"], store)
    mappers: Any = Mapper
    mappers._compiled_cache = shared
