"""TARGET of `oban start`: the application's own `Oban`, or a function that returns it."""

import importlib
import inspect
import os
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Coroutine, Iterable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import oban as package
from oban import Oban, SyncOban
from oban.errors import ConfigError

#: Code in these folders is not the application's.
_LIBRARIES = (sysconfig.get_path("stdlib"), str(Path(package.__file__).parent), "<frozen ", "<string>")


def import_module(name: str, label: str) -> ModuleType:
    """Import a module of the application.

    Raises:
        ConfigError: there is no such module, or it cannot be imported. `label` says what asked for it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{label}: {error}{_similar_module(error.name)}") from error
        raise _failure(f"{label}: cannot import {name}:", error) from error
    except Exception as error:
        raise _failure(f"{label}: cannot import {name}:", error) from error


def load(target: str) -> Coroutine[Any, Any, Oban]:
    """Import TARGET, such as `app.jobs:oban`. If it is a function, call it without arguments.

    Returns:
        A coroutine for the event loop of the node, which awaits an async function and returns the `Oban`.

    Raises:
        ConfigError: there is no such module or attribute, it cannot be called, or it fails. The coroutine
            raises it as well: what TARGET is or returns is not an `Oban`, or the async function fails.
    """
    value = find(target)
    if not (inspect.isroutine(value) or isinstance(value, partial)):
        return _check(target, "is", value)
    try:
        inspect.signature(value).bind()
    except TypeError as error:
        raise ConfigError(f"{target} is called without arguments: {error}") from None
    except ValueError:
        # A builtin without a signature.
        pass
    try:
        return _check(target, "returned", value())
    except Exception as error:
        raise _failure(f"{target} raised", error) from error


def find(target: str) -> Any:
    """Import what a text such as `app.jobs:oban` names.

    Raises:
        ConfigError: there is no such module or attribute.
    """
    module, _, path = target.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise ConfigError(f"{target!r} is not MODULE:ATTRIBUTE, such as app.jobs:oban")
    value: Any = import_module(module, target)
    for attribute in path.split("."):
        owner = value
        try:
            value = getattr(owner, attribute)
        except AttributeError:
            where = getattr(owner, "__name__", type(owner).__name__)
            raise ConfigError(
                f"{target}: {where} has no attribute {attribute!r}{_similar_attribute(owner, attribute)}"
            ) from None
    return value


async def _check(target: str, verb: str, value: Any) -> Oban:
    if inspect.isawaitable(value):
        try:
            value = await value
        except Exception as error:
            raise _failure(f"{target} raised", error) from error
    if isinstance(value, SyncOban):
        raise ConfigError(f"{target} {verb} a SyncOban, which runs no jobs: use an Oban with an async driver")
    if inspect.isclass(value):
        raise ConfigError(f"{target} {verb} the class {value.__qualname__}, not an instance of Oban")
    if not isinstance(value, Oban):
        what = "None" if value is None else f"an object of type {type(value).__name__}"
        raise ConfigError(f"{target} {verb} {what}, not an Oban")
    if value.check_all_queues():
        raise ConfigError(f"{target} is running already: remove its start, because `oban start` starts it")
    return value


def _failure(what: str, error: Exception) -> ConfigError:
    """Describe an error of the application's code in one line, with the place in that code."""
    text = f"{what} {type(error).__name__}: {error}".rstrip(": ")
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_LIBRARIES) or "site-packages" in frame.filename
    ]
    application = [frame for frame in own if "site-packages" not in frame.filename]
    if isinstance(error, SyntaxError) and error.filename:
        # Its own text has only the last part of the path.
        place = f"{os.path.relpath(error.filename)}, line {error.lineno}"
        text = f"{what} {type(error).__name__}: {error.msg} ({place})"
    elif own:
        frame = (application or own)[-1]
        text += f" ({os.path.relpath(frame.filename)}, line {frame.lineno}, in {frame.name})"
    return ConfigError(f"{text}; --log-level debug shows the traceback")


def _similar_module(missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    paths: Iterable[str] = sys.modules[parent].__path__ if parent else [os.getcwd()]
    near = get_close_matches(name, [found.name for found in pkgutil.iter_modules(paths)], 1)
    if near:
        return f"; did you mean {f'{parent}.' if parent else ''}{near[0]}?"
    return "" if parent else f" in {os.getcwd()} or among the installed packages"


def _similar_attribute(owner: Any, attribute: str) -> str:
    near = get_close_matches(attribute, dir(owner), 1)
    if not near:
        near = [name for name, value in vars(owner).items() if isinstance(value, Oban)][:1]
    return f"; did you mean {near[0]}?" if near else ""
