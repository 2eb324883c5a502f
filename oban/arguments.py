"""Args of a declared type: `Worker[EmailArgs]`, where that is a dataclass, a TypedDict or a pydantic model.

pydantic turns them into JSON and back. It is imported when the first worker declares its args.
"""

import json
import sys
import types
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Annotated, Any, ForwardRef, TypeVar, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

from oban import encoding, fields
from oban.errors import ConfigError, InvalidJob

_DICTS: tuple[Any, ...] = (dict, Mapping, MutableMapping)
_UNIONS: tuple[Any, ...] = (Union, types.UnionType)
#: How many faults an error names, and how much of each it shows.
_FAULTS, _SHOWN = 5, 120


def declared(cls: type[Any], root: type[Any], before: Any) -> Any:
    """What the bases of a subclass of `root` say about its args; `before` if they say nothing.

    Raises `ConfigError` for a name that is not defined yet.
    """
    for base in cls.__dict__.get("__orig_bases__", ()):
        origin = get_origin(base)
        if origin is root:
            (said,) = get_args(base)
            return _resolved(said, cls)
        # A generic class of the application between: what it has left open is given here.
        if isinstance(origin, type) and issubclass(origin, root):
            generic: Any = origin
            given = dict(zip(generic.__parameters__, get_args(base), strict=False))
            return _substituted(generic._declared, given, cls)
    return before


def _resolved(said: Any, cls: type[Any]) -> Any:
    if not isinstance(said, (str, ForwardRef)):
        return said
    holder = types.SimpleNamespace(__annotations__={"args": said})
    names = vars(sys.modules.get(cls.__module__, types))
    try:
        return get_type_hints(holder, names, include_extras=True)["args"]
    except NameError as error:
        raise ConfigError(f"{cls.__qualname__}: its args: {error}; define it above the worker") from None


def _substituted(said: Any, given: Mapping[Any, Any], cls: type[Any]) -> Any:
    if isinstance(said, TypeVar):
        return _resolved(given.get(said, said), cls)
    if parameters := getattr(said, "__parameters__", ()):
        return said[tuple(given.get(parameter, parameter) for parameter in parameters)]
    return said


def make(said: Any, owner: str) -> "Arguments | None":
    """What reads and writes the args of a worker; None where they are a plain dict.

    Raises `ConfigError` for a type that no JSON object can be, and without pydantic.
    """
    known = _known(said)
    plain = _class_of(known) in _DICTS and get_args(known) in ((), (str, Any), (str, object))
    if said is None or known is Any or isinstance(known, TypeVar) or plain:
        return None
    _check_kind(said, owner)
    return Arguments(said, owner)


def _check_kind(said: Any, owner: str) -> None:
    known = _known(said)
    if get_origin(known) in _UNIONS:
        for each in get_args(known):
            _check_kind(each, owner)
        return
    cls = _class_of(known)
    # A pydantic model knows its schema.
    if not (is_dataclass(cls) or is_typeddict(cls) or cls in _DICTS or hasattr(cls, "model_json_schema")):
        raise ConfigError(
            f"{owner}: its args must be a dataclass, a TypedDict or a pydantic model, not {_name(said)}"
        )


def _known(said: Any) -> Any:
    """What a NewType, `type X = …` or `Annotated` gives another name to."""
    while True:
        if get_origin(said) is Annotated:
            said = get_args(said)[0]
        elif (behind := getattr(said, "__supertype__", getattr(said, "__value__", None))) is not None:
            said = behind
        else:
            return said


def _class_of(said: Any) -> Any:
    """The class of a generic alias, or under another name; None if there are several."""
    known = _known(said)
    cls = get_origin(known) or known
    return None if cls in _UNIONS else cls


def check_parameter(process: Any, said: Any, owner: str) -> None:
    """Raise `ConfigError` if the parameter `args` of `process` is annotated as what it will not get.

    An annotation that cannot be resolved, or is no class, passes.
    """
    annotation = getattr(process, "__annotations__", {}).get("args")
    if isinstance(annotation, str):
        holder = types.SimpleNamespace(__annotations__={"args": annotation})
        try:
            annotation = get_type_hints(holder, process.__globals__)["args"]
        # Whatever the text says: it may be meant for a type checker alone.
        except Exception:
            return
    wanted, got = _class_of(annotation), _class_of(said)
    if wanted is Any or not isinstance(wanted, type) or not isinstance(got, type):
        return
    # A TypedDict has no subclasses; of a plain dict it may say what is in there.
    fits = (wanted is got or got is dict) if is_typeddict(wanted) else issubclass(got, wanted)
    if not fits:
        raise ConfigError(
            f"{owner}: process gets its args as {_name(said)}, not {_name(annotation)}:"
            f" class {owner.rpartition('.')[2]}(Worker[{_name(annotation)}]) declares these"
        )


def _name(said: Any) -> str:
    return said.__qualname__ if isinstance(said, type) and not get_args(said) else str(said)


class Arguments:
    """Reads and writes args of one declared type."""

    __slots__ = ("_adapter", "_invalid", "said")

    def __init__(self, said: Any, owner: str) -> None:
        try:
            from pydantic import TypeAdapter, ValidationError
        except ImportError:
            raise ConfigError(
                f"{owner}: args of a declared type need pydantic 2: pip install 'oban-sqlalchemy[pydantic]'"
            ) from None
        self.said: Any = said
        self._invalid = ValidationError
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(said)
            self._adapter.rebuild(raise_errors=True)
        except Exception as error:
            text = encoding.log_safe(str(error).partition("\n")[0], 500)
            raise ConfigError(f"{owner}: its args cannot be {_name(said)}: {text}") from error

    def parse(self, args: dict[str, Any], owner: str) -> Any:
        """The object of stored args. Raises `InvalidJob`, or what a validator of the type raises."""
        try:
            return self._adapter.validate_json(_text(args))
        # Not the error itself: it shows the values.
        except self._invalid as error:
            raise InvalidJob("args", f"of {owner} do not fit {_name(self.said)}: {_faults(error)}") from None

    def _read(self, value: Any) -> Any:
        try:
            return self._adapter.validate_python(value)
        except self._invalid:
            # What a strict model refuses of a dict, such as a date as text, it may take of JSON.
            if isinstance(value, dict):
                with suppress(InvalidJob, self._invalid):
                    return self._adapter.validate_json(_text(fields.args(value)))
            raise

    def dump(self, value: Any, owner: str) -> dict[str, Any]:
        """JSON values of an object, or of a dict that can be parsed, which `parse` makes equal again.

        Raises `InvalidJob`.
        """
        try:
            given = self._read({} if value is None else value)
            dumped = self._adapter.dump_python(
                given, mode="json", by_alias=True, round_trip=True, warnings=False
            )
            stored = fields.args(dumped)
            back = self.parse(stored, owner)
            same = bool(back == given)
        except InvalidJob:
            raise
        except self._invalid as error:
            raise InvalidJob("args", f"of {owner} do not fit {_name(self.said)}: {_faults(error)}") from None
        except Exception as error:
            text = encoding.log_safe(str(error), _SHOWN)
            raise InvalidJob(
                "args", f"of {owner} cannot be stored: {type(error).__name__}: {text}"
            ) from error
        if not same:
            raise InvalidJob(
                "args", f"of {owner} would not come back as they are: {_difference(given, back)}"
            )
        return stored


def _text(args: dict[str, Any]) -> str:
    try:
        return encoding.dumps(args)
    except TypeError:
        # Integers of more than 64 bits, or many levels: databases store these.
        return json.dumps(args)


def _faults(error: Any) -> str:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{_path(fault['loc'])}{encoding.log_safe(fault['msg'], _SHOWN)}" for fault in faults[:_FAULTS]]
    more = f"; and {len(faults) - _FAULTS:,} more" if len(faults) > _FAULTS else ""
    return "; ".join(shown) + more


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{encoding.log_safe(part, 40)}" for part in location)
    path = "".join(parts).removeprefix(".")
    return f"{encoding.log_safe(path, _SHOWN)}: " if path else ""


def _difference(given: Any, back: Any) -> str:
    """Which fields differ, without their values."""
    if type(given) is not type(back):
        return f"{type(given).__qualname__} as {type(back).__qualname__}"
    if isinstance(given, dict):
        before, after = given, back
    else:
        names = getattr(given, "__dataclass_fields__", None) or getattr(type(given), "model_fields", {})
        before, after = ({name: getattr(side, name, None) for name in names} for side in (given, back))
    changed = [name for name in before if before[name] != after.get(name)]
    kinds = (
        f"{encoding.log_safe(name, 40)}"
        f" ({type(before[name]).__name__}, then {type(after.get(name)).__name__})"
        for name in changed[:_FAULTS]
    )
    return ", ".join(kinds) or f"{type(given).__qualname__} does not compare by value"
