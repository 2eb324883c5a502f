"""Typed args: `Worker[EmailArgs]`, where EmailArgs is a dataclass, a TypedDict or a pydantic model.

pydantic converts them to JSON and back. It is imported when the first worker declares a type.
"""

import json
import sys
import types
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from typing import Any, ForwardRef, TypeVar, Union, get_args, get_origin

from typing_extensions import is_typeddict

from oban import encoding, error_texts, fields, redaction
from oban.annotations import evaluate, show, unalias
from oban.errors import ConfigError, InvalidJob
from oban.secret_values import Secrets

_DICTS: tuple[Any, ...] = (dict, Mapping, MutableMapping)
_UNIONS: tuple[Any, ...] = (Union, types.UnionType)
#: How many problems an error lists, and how many characters of each.
_MAX_PROBLEMS, _MAX_LENGTH = 5, 120
_UNKNOWN = object()
#: How many references and unions of a JSON schema are followed.
_MAX_DEPTH = 10


def declared(cls: type[Any], root: type[Any], inherited: Any) -> Any:
    """The type of the args of a subclass of `root`: from `root[…]` among its bases, or `inherited`.

    Raises `ConfigError` if it names a class that is not defined yet.
    """
    for base in cls.__dict__.get("__orig_bases__", ()):
        origin = get_origin(base)
        if origin is root:
            return _resolve(get_args(base)[0], cls)
        # A generic class of the application in between leaves its type parameters to this class.
        if isinstance(origin, type) and issubclass(origin, root):
            generic: Any = origin
            values = dict(zip(generic.__parameters__, get_args(base), strict=False))
            return _substitute(generic._declared, values, cls)
    return inherited


def _resolve(declared: Any, cls: type[Any]) -> Any:
    if not isinstance(declared, (str, ForwardRef)):
        return declared
    try:
        return evaluate(declared, vars(sys.modules.get(cls.__module__, types)))
    except NameError as error:
        raise ConfigError(f"its args: {error}; define it above the worker") from None


def _substitute(declared: Any, values: Mapping[Any, Any], cls: type[Any]) -> Any:
    if isinstance(declared, TypeVar):
        return _resolve(values.get(declared, declared), cls)
    if parameters := getattr(declared, "__parameters__", ()):
        return declared[tuple(values.get(parameter, parameter) for parameter in parameters)]
    return declared


def make(declared: Any) -> "Arguments | None":
    """The converter for args of a declared type; None if they are a plain dict.

    Raises `ConfigError` if the type does not correspond to a JSON object, or if pydantic is not installed.
    """
    alias_of = unalias(declared)
    plain = _class_of(alias_of) in _DICTS and get_args(alias_of) in ((), (str, Any), (str, object))
    if declared is None or alias_of is Any or isinstance(alias_of, TypeVar) or plain:
        return None
    _check_kind(declared)
    return Arguments(declared)


def _check_kind(declared: Any) -> None:
    alias_of = unalias(declared)
    if get_origin(alias_of) in _UNIONS:
        for member in get_args(alias_of):
            _check_kind(member)
        return
    cls = _class_of(alias_of)
    is_model = hasattr(cls, "model_json_schema")
    if not (is_model or is_dataclass(cls) or is_typeddict(cls) or cls in _DICTS):
        raise ConfigError(
            f"its args must be a dataclass, a TypedDict or a pydantic model, not {show(declared)}"
        )


def _class_of(declared: Any) -> Any:
    """The class of a type, without its parameters; None for a union."""
    alias_of = unalias(declared)
    cls = get_origin(alias_of) or alias_of
    return None if cls in _UNIONS else cls


def is_value(args: Any) -> bool:
    """Whether something is args, a dict or an object of a type that can be declared, and not such a type."""
    is_object = is_dataclass(args) or hasattr(args, "model_json_schema")
    return isinstance(args, Mapping) or (is_object and not isinstance(args, type))


def check_parameter(process: Any, declared: Any, class_name: str) -> None:
    """Raise `ConfigError` if the annotation of the parameter `args` of `process` is not the declared type.

    An annotation that cannot be evaluated, or is not a class, is accepted.
    """
    annotation = getattr(process, "__annotations__", {}).get("args")
    if isinstance(annotation, str):
        try:
            annotation = evaluate(annotation, process.__globals__)
        # It may be meant only for a type checker.
        except Exception:
            return
    wanted, actual = _class_of(annotation), _class_of(declared)
    if wanted is Any or not isinstance(wanted, type) or not isinstance(actual, type):
        return
    # A TypedDict has no subclasses, but can describe a plain dict.
    fits = (wanted is actual or actual is dict) if is_typeddict(wanted) else issubclass(actual, wanted)
    if not fits:
        raise ConfigError(
            f"process gets its args as {show(declared)}, not {show(annotation)}:"
            f" class {class_name}(Worker[{show(annotation)}]) declares these"
        )


def example(declared: Any, names: list[str]) -> str:
    """How args with these names are written: `SendArgs(to=…)`, or `{'to': …}` if they are a dict."""
    cls = _class_of(declared)
    shown = [error_texts.log_safe(name, 40) for name in names[:_MAX_PROBLEMS]]
    if hasattr(cls, "model_json_schema") or is_dataclass(cls):
        return f"{cls.__name__}({', '.join(f'{name}=…' for name in shown)})"
    return f"{{{', '.join(f'{name!r}: …' for name in shown)}}}"


def stored_form(value: object) -> Any:
    """The JSON value that typed args store for a value of any type.

    It is the value itself if pydantic cannot convert it, or is not installed: then no args are typed.
    """
    try:
        from pydantic import ConfigDict, TypeAdapter

        # By default, NaN would become null.
        return _dump(TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants")), value)
    # A serializer of a class can raise anything.
    except Exception:
        return value


@contextmanager
def without_values(args: object, redacted: frozenset[str], *, everything: bool) -> Iterator[None]:
    """Remove redacted values, or all values, of args from the message of an `InvalidJob`."""
    try:
        yield
    except InvalidJob as error:
        form = stored_form(args)
        secrets = Secrets([form]) if everything else redaction.secrets_in([form], redacted)
        raise InvalidJob(error.field, secrets.text(error.problem)) from None


def _dump(adapter: Any, value: object) -> Any:
    return adapter.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings=False)


class Arguments:
    """Converts args of one declared type to JSON values and back."""

    __slots__ = ("_adapter", "_invalid", "_name", "_names")

    def __init__(self, declared: Any) -> None:
        try:
            from pydantic import TypeAdapter, ValidationError
        except ImportError:
            raise ConfigError(
                "args of a declared type need pydantic 2: pip install 'oban-sqlalchemy[pydantic]'"
            ) from None
        self._name = show(declared)
        self._names: Any = _UNKNOWN
        self._invalid = ValidationError
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(declared)
            self._adapter.rebuild(raise_errors=True)
        except Exception as error:
            problem = error_texts.log_safe(str(error).partition("\n")[0], 500)
            raise ConfigError(f"its args cannot be {self._name}: {problem}") from error

    def names(self) -> frozenset[str] | None:
        """The keys that dumped args can have; None if they can have any, or if that is not known."""
        # A schema takes long to make, and calls can set keys for each job.
        if self._names is _UNKNOWN:
            self._names = self._find_names()
        found: frozenset[str] | None = self._names
        return found

    def _find_names(self) -> frozenset[str] | None:
        try:
            schema = self._adapter.json_schema(mode="serialization", by_alias=True)
        # There is no schema of some types that can be dumped.
        except Exception:
            return None
        return _property_names(schema, schema.get("$defs", {}), 0)

    def described(self) -> list[tuple[str, str]]:
        """The keys of dumped args, each with its type as JSON has it; empty if they are not known."""
        try:
            schema = self._adapter.json_schema(mode="serialization", by_alias=True)
        # There is no schema of some types that can be dumped.
        except Exception:
            return []
        required = schema.get("required", ())
        return [
            (name, f"{_type_of(part, schema.get('$defs', {}))}{'' if name in required else ', optional'}")
            for name, part in schema.get("properties", {}).items()
        ]

    def parse(self, args: dict[str, Any], owner: str) -> Any:
        """The object that stored args stand for.

        Raises `InvalidJob` if they do not fit the type. A validator of the type can raise other errors.
        """
        try:
            return self._adapter.validate_json(_dumps(args))
        except self._invalid as error:
            raise self._misfit(error, owner) from None

    def dump(self, value: Any, owner: str) -> dict[str, Any]:
        """The JSON values of an object of the type, or of a dict of its fields.

        Raises `InvalidJob` if the value does not fit the type, cannot be stored, or if `parse` would not
        return an equal object.
        """
        try:
            before = self._validate({} if value is None else value)
            stored = fields.args(_dump(self._adapter, before))
            after = self.parse(stored, owner)
            if after == before:
                return stored
        except InvalidJob:
            raise
        except self._invalid as error:
            raise self._misfit(error, owner) from None
        except Exception as error:
            problem = f"{type(error).__name__}: {error_texts.log_safe(str(error), _MAX_LENGTH)}"
            raise InvalidJob("args", f"of {owner} cannot be stored: {problem}") from error
        changed = _difference(before, after)
        raise InvalidJob("args", f"of {owner} would not come back as they are: {changed}")

    def _validate(self, value: Any) -> Any:
        try:
            return self._adapter.validate_python(value)
        except self._invalid:
            # A strict model accepts some values only in JSON, such as a date in a string.
            if isinstance(value, dict):
                with suppress(InvalidJob, self._invalid):
                    return self._adapter.validate_json(_dumps(fields.args(value)))
            raise

    def _misfit(self, error: Any, owner: str) -> InvalidJob:
        # pydantic's own message includes the values.
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        shown = [
            f"{_path(problem['loc'])}{error_texts.log_safe(problem['msg'], _MAX_LENGTH)}"
            for problem in problems[:_MAX_PROBLEMS]
        ]
        if len(problems) > _MAX_PROBLEMS:
            shown.append(f"and {len(problems) - _MAX_PROBLEMS:,} more")
        return InvalidJob("args", f"of {owner} do not fit {self._name}: {'; '.join(shown)}")


def _property_names(schema: Any, definitions: Mapping[str, Any], depth: int) -> frozenset[str] | None:
    """The names of the properties of an object with this JSON schema; None if it can have others."""
    if depth > _MAX_DEPTH or not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _property_names(definitions.get(name), definitions, depth + 1)
    if members := schema.get("anyOf") or schema.get("oneOf"):
        known = [_property_names(member, definitions, depth + 1) for member in members]
        return frozenset().union(*known) if None not in known else None  # type: ignore[arg-type]
    if schema.get("type") != "object" or schema.get("additionalProperties", False) is not False:
        return None
    return frozenset(schema.get("properties", ()))


def _type_of(part: Any, definitions: Mapping[str, Any], depth: int = 0) -> str:
    """What a JSON schema allows, in a few words."""
    if depth > _MAX_DEPTH or not isinstance(part, dict):
        return "any"
    if "$ref" in part:
        return _type_of(definitions.get(part["$ref"].rpartition("/")[2]), definitions, depth + 1)
    if "enum" in part or "const" in part:
        listed = part.get("enum", [part.get("const")])
        return " or ".join(json.dumps(value) for value in listed[:8])
    if members := part.get("anyOf") or part.get("oneOf"):
        return " or ".join(_type_of(member, definitions, depth + 1) for member in members[:8])
    name = str(part.get("type", "any"))
    if name == "array" and "items" in part:
        return f"array of {_type_of(part['items'], definitions, depth + 1)}"
    return f"{name} ({part['format']})" if "format" in part else name


def _dumps(args: dict[str, Any]) -> str:
    try:
        return encoding.dumps(args)
    except TypeError:
        # orjson refuses integers of more than 64 bits and deep nesting, which databases store.
        return json.dumps(args)


def _path(location: tuple[int | str, ...]) -> str:
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{error_texts.log_safe(part, 40)}" for part in location
    )
    path = "".join(parts).removeprefix(".")
    return f"{error_texts.log_safe(path, _MAX_LENGTH)}: " if path else ""


def _difference(before: Any, after: Any) -> str:
    """The fields that differ, without their values."""
    cls = type(before)
    if cls is not type(after):
        return f"{cls.__qualname__} as {type(after).__qualname__}"
    if not isinstance(before, dict):
        names = getattr(before, "__dataclass_fields__", None) or getattr(cls, "model_fields", {})
        before, after = ({name: getattr(side, name, None) for name in names} for side in (before, after))
    changed = [name for name in before if before[name] != after.get(name)]
    shown = []
    for name in changed[:_MAX_PROBLEMS]:
        types_ = f"{type(before[name]).__name__}, then {type(after.get(name)).__name__}"
        shown.append(f"{error_texts.log_safe(name, 40)} ({types_})")
    return ", ".join(shown) or f"{cls.__qualname__} does not compare by value"
