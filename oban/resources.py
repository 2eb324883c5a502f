"""Resources: what a node's lifespan yields, and the parameters that get it."""

import enum
import inspect
import re
import types
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from typing_extensions import is_typeddict

from oban import annotations, display
from oban.errors import ConfigError

T = TypeVar("T")


class _Marker:
    """Tells a parameter for a resource from one for an arg of the job."""

    def __repr__(self) -> str:
        return "oban.Resource"


_MARKER = _Marker()
#: The annotation of a parameter that gets what the lifespan yields: `http: Resource[httpx.AsyncClient]`.
Resource: TypeAlias = Annotated[T, _MARKER]


class _Injected:
    def __repr__(self) -> str:
        return "oban.injected"


#: The default of such a parameter, so that type checkers do not require callers to pass it.
injected: Any = _Injected()

_MARKED = re.compile(r"\bResource\[")
_UNIONS: tuple[Any, ...] = (Union, types.UnionType)
#: Types of what a job's args contain, or look as if they did.
_VALUES = (date, time, timedelta, uuid.UUID, Decimal, enum.Enum, PurePath)


@dataclass(frozen=True, slots=True)
class ResourceParameter:
    """A parameter for a resource. `names` are the global names that its annotation can use."""

    name: str
    annotation: Any
    required: bool
    names: Mapping[str, Any]

    @property
    def classes(self) -> tuple[type[Any], ...]:
        """The classes whose instances fit the annotation; none if it cannot be evaluated."""
        return classes(self.annotation, self.names)

    def __str__(self) -> str:
        annotation = resolve(self.annotation, self.names)
        if annotation is inspect.Parameter.empty:
            return self.name
        shown = " | ".join(map(annotations.show, _members(annotation)))
        return f"{self.name}: {shown}"


def inspect_parameter(parameter: inspect.Parameter, names: Mapping[str, Any]) -> ResourceParameter | None:
    """The parameter of `process` as one for a resource, or None if its annotation is not one of a resource.

    An annotation that cannot be evaluated may be meant for a type checker only, and is accepted.
    """
    annotation = resolve(parameter.annotation, names)
    required = parameter.default is inspect.Parameter.empty or parameter.default is injected
    # An optional parameter without an annotation is found by its name.
    is_named = annotation is inspect.Parameter.empty and not required
    is_chosen = parameter.default is injected or is_marked(annotation)
    if not (isinstance(annotation, str) or is_chosen or is_named or _can_be(annotation)):
        return None
    return ResourceParameter(parameter.name, parameter.annotation, required, names)


def classes(annotation: Any, names: Mapping[str, Any]) -> tuple[type[Any], ...]:
    """The classes whose instances fit an annotation; none if it cannot be evaluated."""
    members = _members(resolve(annotation, names))
    return tuple(kind for kind in map(_class_of, members) if isinstance(kind, type))


def is_marked(annotation: Any) -> bool:
    """Whether an annotation is `Resource[…]`, or a union with one."""
    if isinstance(annotation, str):
        # It cannot be evaluated, for example because its class is imported for type checkers only.
        return _MARKED.search(annotation) is not None
    if get_origin(annotation) in _UNIONS:
        return any(map(is_marked, get_args(annotation)))
    return get_origin(annotation) is Annotated and _MARKER in get_args(annotation)[1:]


def resolve(annotation: Any, names: Mapping[str, Any]) -> Any:
    """The value of an annotation, or the string itself if it cannot be evaluated."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return annotations.evaluate(annotation, names)
    except Exception:
        return annotation


def _members(annotation: Any) -> list[Any]:
    """The members of a union, without None, or the annotation itself."""
    annotation = annotations.unalias(annotation)
    if get_origin(annotation) not in _UNIONS:
        return [annotation]
    return [
        inner for member in get_args(annotation) if member is not types.NoneType for inner in _members(member)
    ]


def _class_of(annotation: Any) -> Any:
    return get_origin(annotation) or annotation


def _can_be(annotation: Any) -> bool:
    """Whether an annotation can be that of a resource: it is no builtin, JSON value or the like."""
    members = _members(annotation)
    return bool(members) and all(map(_member_can_be, members))


def _member_can_be(annotation: Any) -> bool:
    kind = _class_of(annotation)
    if annotation in (None, Any, inspect.Parameter.empty) or kind is Literal:
        return False
    if not isinstance(kind, type):
        return True
    if kind.__module__ in ("builtins", "typing", "collections.abc") and kind.__name__ != "Callable":
        return False
    return not (is_typeddict(kind) or issubclass(kind, _VALUES))


class Resources:
    """What the lifespan of a node has yielded; None if there is no lifespan.

    Raises `ConfigError` for a mapping whose keys are not names.
    """

    def __init__(self, yielded: Any = None) -> None:
        self._named: Mapping[str, Any] = yielded if isinstance(yielded, Mapping) else {}
        for name in self._named:
            if not isinstance(name, str):
                raise ConfigError(
                    f"lifespan must yield a mapping of names to values; {display.shown(name)} is no name"
                )
        unnamed = [] if yielded is None or isinstance(yielded, Mapping) else [yielded]
        # The same object under two names is one resource.
        self._values = list({id(value): value for value in (*self._named.values(), *unnamed)}.values())
        self._by_worker: dict[type[Any], dict[str, Any]] = {}

    def of(self, worker: type[Any]) -> dict[str, Any]:
        """The resources that a worker's `process` takes, by parameter.

        Raises `ConfigError` if one is missing.
        """
        found = self._by_worker.get(worker)
        if found is None:
            found = {}
            for parameter in worker.resource_parameters:
                if parameter.name in self._named:
                    found[parameter.name] = self._named[parameter.name]
                elif values := self._fitting(parameter):
                    if len(values) > 1:
                        raise ConfigError(
                            f"{worker.worker_name}: the lifespan yields {len(values)} values that fit the"
                            f" parameter {parameter}: yield a mapping with the key {parameter.name!r}"
                        )
                    found[parameter.name] = values[0]
                elif parameter.required:
                    raise ConfigError(
                        f"{worker.worker_name}: the lifespan of this node yields nothing for the parameter"
                        f" {parameter} of process: Oban(…, lifespan=…) has to yield an instance, or a mapping"
                        f" with the key {parameter.name!r}"
                    )
            self._by_worker[worker] = found
        return found

    def _fitting(self, parameter: ResourceParameter) -> list[Any]:
        found = []
        for value in self._values:
            try:
                if isinstance(value, parameter.classes):
                    found.append(value)
            # A protocol can be one that isinstance() does not check.
            except TypeError:
                continue
        return found
