"""What the methods `process` and `backoff` of a worker are and take, checked when it is defined."""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from oban import callables, resources
from oban.errors import ConfigError
from oban.resources import ResourceParameter

#: Parameters that `process` can have in addition to the job; it gets them by name.
EXTRA_PARAMETERS = frozenset({"args", "session"})
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NO_METHODS = (property, functools.cached_property, functools.partial, functools.partialmethod)
#: Names that other libraries have for `process`.
_OTHER_NAMES = ("perform", "run", "execute", "handle", "call", "work", "proces", "processes", "__call__")


#: How `backoff` gets the exception: as its second argument, as the keyword `error`, or not at all.
PassesError: TypeAlias = Literal["position", "keyword"] | None


@dataclass(frozen=True, slots=True)
class Process:
    """What `process` takes in addition to the job: `EXTRA_PARAMETERS`, and resources."""

    takes: frozenset[str] = frozenset()
    resources: tuple[ResourceParameter, ...] = ()


def inspect_process(cls: type[Any], types_by_name: Mapping[str, tuple[Any, ...]]) -> Process:
    """Check the `process` of a class. Raises `ConfigError` if a job could not run with it.

    A parameter for an instance of a type in `types_by_name` must have that name.
    """
    static = inspect.getattr_static(cls, "process")
    function = getattr(cls, "process")  # noqa: B009
    if isinstance(static, _NO_METHODS) or not callable(function):
        raise ConfigError(f"process must be a method, not a {type(static).__name__}")
    if inspect.isclass(function):
        raise ConfigError(f"process must be a method, not the class {function.__qualname__}")
    if callables.is_generator(function):
        raise ConfigError(
            "process is a generator, and would complete without running: remove the yield, or move it to"
            " another method"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return Process()
    own = _without_self(signature) if _has_self(static) else signature
    process = _inspect_parameters(own, _globals(function))
    for parameter in process.resources:
        for name, types in types_by_name.items():
            if any(base in types for kind in parameter.classes for base in kind.__mro__):
                raise ConfigError(f"the parameter {parameter} of process must be called {name}")
    return process


def inspect_backoff(cls: type[Any]) -> PassesError:
    """How the method `backoff` of a class gets the exception. Raises `ConfigError` if it cannot be called.

    A parameter `error` gets it, or else a second parameter without a default, or `*args` or `**kwargs`.
    """
    function, static = getattr(cls, "backoff"), inspect.getattr_static(cls, "backoff")  # noqa: B009
    if not callable(function) or callables.is_async(function) or callables.is_generator(function):
        raise ConfigError("backoff must be a plain method")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    if _has_self(static) and parameters and parameters[0].kind in _POSITIONAL:
        parameters = parameters[1:]
    passes = _error_parameter(parameters)
    extra = (None,) if passes == "position" else ()
    keywords = {"error": None} if passes == "keyword" else {}
    try:
        signature.replace(parameters=parameters).bind(None, *extra, **keywords)
    except TypeError as error:
        raise ConfigError(
            f"backoff cannot be called with the job and the exception: {error}; define it as"
            " def backoff(self, job) or def backoff(self, job, error)"
        ) from None
    return passes


def _error_parameter(parameters: list[inspect.Parameter]) -> PassesError:
    """How a `backoff` with these parameters, without self, gets the exception."""
    others = parameters[1:] if parameters and parameters[0].kind in _POSITIONAL else parameters
    if any(parameter.name == "error" and parameter.kind in _NAMED for parameter in others):
        return "keyword"
    second = others[0] if others and others[0].kind in _POSITIONAL else None
    if second is not None and (second.name == "error" or second.default is inspect.Parameter.empty):
        return "position"
    kinds = {parameter.kind for parameter in others}
    if second is None and inspect.Parameter.VAR_POSITIONAL in kinds:
        return "position"
    return "keyword" if inspect.Parameter.VAR_KEYWORD in kinds else None


def _has_self(static: Any) -> bool:
    # A static or class method, or a callable object, has the signature of a bound method already.
    return hasattr(type(static), "__get__") and not isinstance(static, (staticmethod, classmethod))


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise ConfigError("process must take self and the job: def process(self, job)")
    return signature.replace(parameters=parameters[1:]) if parameters[0].kind in _POSITIONAL else signature


def _inspect_parameters(signature: inspect.Signature, names: Mapping[str, Any]) -> Process:
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in _POSITIONAL:
        # It gets the job.
        parameters = parameters[1:]
    takes, found = set(), []
    for parameter in parameters:
        if parameter.kind not in _NAMED:
            continue
        if parameter.name in EXTRA_PARAMETERS:
            takes.add(parameter.name)
        elif resource := resources.inspect_parameter(parameter, names):
            found.append(resource)
        elif parameter.default is inspect.Parameter.empty:
            raise ConfigError(
                f"nothing fills the parameter {parameter.name} of process: the job's args are in job.args, or"
                " in a parameter called args; one for what the lifespan yields needs its class as annotation,"
                " or oban.Resource[…]"
            )
    keywords = dict.fromkeys(takes | {resource.name for resource in found})
    try:
        signature.bind(None, **keywords)
    except TypeError as error:
        raise ConfigError(
            f"process cannot be called as process(job): {error}; it takes the job as its first argument:"
            " def process(self, job)"
        ) from None
    return Process(frozenset(keywords), tuple(found))


def _globals(function: Any) -> Mapping[str, Any]:
    function = inspect.unwrap(function)
    names: Mapping[str, Any] = getattr(getattr(function, "__func__", function), "__globals__", {})
    return names


def check_session(function: Any, is_async: bool, kinds: tuple[type[Any], type[Any]]) -> None:
    """Raise `ConfigError` if the parameter `session` of `process` is annotated as the wrong kind of session.

    An async `process` gets the first of two kinds, and a plain one the second.
    """
    annotation = inspect.signature(function).parameters["session"].annotation
    annotated = resources.classes(annotation, _globals(function))
    gets, wrong = kinds if is_async else (kinds[1], kinds[0])
    if annotated and all(issubclass(kind, wrong) for kind in annotated):
        how = "an async process" if is_async else "a plain process, which runs in a thread,"
        other = "a plain def" if is_async else "an async def"
        raise ConfigError(
            f"{how} gets {_article(gets)} as session, not {_article(annotated[0])}: change the annotation, or"
            f" make process {other}"
        )


def _article(cls: type[Any]) -> str:
    return f"{'an' if cls.__name__.startswith(tuple('AEIOU')) else 'a'} {cls.__name__}"


def why_base(cls: type[Any], root: type[Any]) -> str | None:
    """Why a subclass of `root` is only a base for other workers; None if it can process jobs.

    Raises `ConfigError` if the `process` of one of its bases is hidden by that of `root`.
    """
    if inspect.getattr_static(cls, "process") is root.__dict__["process"]:
        for base in cls.__mro__[cls.__mro__.index(root) + 1 :]:
            if "process" in vars(base):
                raise ConfigError(
                    f"the process of {base.__name__} is hidden by that of {root.__name__}: put"
                    f" {base.__name__} before {root.__name__} in the list of bases"
                )
        other = next((name for name in _OTHER_NAMES if callable(vars(cls).get(name))), None)
        return "has no method process" + (f"; should {other} be called process?" if other else "")
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        return f"cannot be made without arguments: {error}"
    # Some classes have no signature.
    except ValueError:
        pass
    abstract = [name for name in dir(cls) if _is_abstract(inspect.getattr_static(cls, name, None))]
    return f"is abstract: it does not define {', '.join(abstract)}" if abstract else None


def _is_abstract(member: Any) -> bool:
    return getattr(member, "__isabstractmethod__", False) is True
