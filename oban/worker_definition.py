"""Defines a worker: checks the options and the methods of its class, and sets what they say on the class."""

import inspect
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import (
    arguments,
    callables,
    config,
    cron_options,
    display,
    encryption,
    error_rules,
    fields,
    main_module,
    redaction,
    signatures,
)
from oban.errors import ConfigError, InvalidJob
from oban.fields import WorkerOptions
from oban.middleware import layers
from oban.models import Job
from oban.registry import registry
from oban.unique import Unique, check_known_keys, parse_replace

EXECUTORS = ("thread", "process")


def define(cls: Any, root: type[Any], options: WorkerOptions) -> None:
    """Set the options of a subclass of `root`, which is `Worker`, and register it unless it is only a base.

    Raises `ConfigError`.
    """
    try:
        _set_options(cls, options)
        _inspect_process(cls, root)
        _inspect_timeout(cls, root)
        check_known_keys(cls._unique, cls._arg_names)
        cls._passes_error = signatures.inspect_backoff(cls)
        if cls._why_base is None:
            cron_options.check_args(cls)
            registry.add(cls)
        elif cls._aliases or cls._cron:
            option = "aliases" if cls._aliases else "cron"
            raise ConfigError(f"it {cls._why_base}, so it cannot have {option}")
        else:
            registry.remove(cls.worker_name)
    except (ConfigError, InvalidJob) as error:
        raise ConfigError(f"{cls.__qualname__}: {error}") from error.__cause__


def _set_options(cls: Any, options: WorkerOptions) -> None:
    config.check_known(options, WorkerOptions.__annotations__)
    module = main_module.import_name(cls.__module__)
    cron = cron_options.pop(cast(dict[str, Any], options))
    name, oban = options.pop("name", None), options.pop("oban", None)
    executor, aliases = options.pop("executor", None), options.pop("aliases", None)
    if "timeout" in options:
        timeout = options.pop("timeout")
        cls._timeout = None if timeout is None else fields.timeout(timeout)
        cls._has_timeout = True
    if (functions := options.pop("middleware", None)) is not None:
        cls.own_middleware = layers(callables.middleware(functions))
    cls._redacted |= redaction.parse(options.pop("redact", None))
    if "encrypt" in options:
        # None is refused: it may be a variable of the environment that is not set.
        keys: encryption.Keys | None = encryption.Keys(options.pop("encrypt"))
    else:
        keys = None if cls._encryption is None else cls._encryption.keys
    # The rules of a base class apply, except for the exceptions that are named again.
    cls.error_rules = {**cls.error_rules, **error_rules.pop_rules(options)}
    _set_unique(cls, options.pop("unique", None), options.pop("replace", None))
    own = fields.check(options)
    cls.worker_name = fields.worker(f"{module}.{cls.__qualname__}" if name is None else name)
    if keys is not None:
        cls._encryption = encryption.Encryption(keys, cls.worker_name)
    cls._has_secrets = bool(cls._redacted) or keys is not None
    cls._defaults = {**cls._defaults, **own, "worker": cls.worker_name}
    cls._template = Job._template(cls._defaults)
    cls._mutable = {field: cls._defaults[field] for field in cls._defaults.keys() & {"tags", "meta"}}
    if oban is not None:
        config.check_name("oban", oban)
        cls._oban = oban
    cls._is_in_script = name is None and module == cls.__module__ == main_module.MAIN
    # `@worker` can decorate a worker of this name.
    previous = registry.get(cls.worker_name)
    same = previous if previous is not None and previous in cls.__mro__ else None
    inherited = () if same is None else same._aliases
    cls._aliases = inherited if aliases is None else _parse_aliases(aliases, cls.worker_name)
    cls._cron = same._cron if cron is None and same is not None else cron
    if executor not in (None, *EXECUTORS):
        raise ConfigError(f"executor must be {' or '.join(EXECUTORS)}, not {display.shown(executor)}")
    if executor is not None:
        cls.in_process = executor == "process"
    cls.is_async = callables.is_async(cls.process)
    if cls.is_async and (executor or cls.in_process):
        raise ConfigError("an async process runs on the event loop; executor is for a plain one")


def _set_unique(cls: Any, unique: object, replacement: object) -> None:
    """Set the options `unique` and `replace`, which apply to subclasses until they set another value."""
    if unique is not None:
        cls._unique = Unique.parse(unique)
        if cls._unique is None:
            cls._replace = {}
    if replacement is not None:
        cls._replace = parse_replace(replacement)
        if cls._unique is None:
            raise ConfigError("replace is for unique jobs: pass unique as well, such as unique=True")


def _inspect_process(cls: Any, root: type[Any]) -> None:
    declared = arguments.declared(cls, root, cls._declared)
    if declared is not cls._declared:
        cls._declared, cls._arguments = declared, arguments.make(declared)
    types_by_name: dict[str, tuple[Any, ...]] = {"session": (Session, AsyncSession)}
    if cls._arguments is not None:
        types_by_name["args"] = (declared,)
    cls._why_base = signatures.why_base(cls, root)
    process = signatures.Process()
    if cls._why_base is None:
        process = signatures.inspect_process(cls, types_by_name)
    cls.takes, cls.resource_parameters = process.takes, process.resources
    if "session" in cls.takes:
        signatures.check_session(cls.process, cls.is_async, (AsyncSession, Session))
    if "args" in cls.takes:
        arguments.check_parameter(cls.process, declared if cls._arguments else dict, cls.__name__)
    if cls.in_process and (missing := cls.takes - {"args"}):
        what = "the job's session" if "session" in missing else "what the lifespan yields"
        raise ConfigError(
            f"a child process cannot have {what}: remove the parameter {sorted(missing)[0]}, or executor"
        )


def _inspect_timeout(cls: Any, root: type[Any]) -> None:
    if not callable(cls.timeout) or inspect.iscoroutinefunction(cls.timeout):
        raise ConfigError("timeout must be a plain method")
    is_overridden = inspect.getattr_static(cls, "timeout") is not root.__dict__["timeout"]
    cls._uses_default_timeout = not (cls._has_timeout or is_overridden)


def _parse_aliases(value: str | Sequence[str], own_name: str) -> tuple[str, ...]:
    """The option `aliases`. Raises `ConfigError` unless it is a name or a list of names."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple, set, frozenset)):
        raise ConfigError(f"aliases must be a name or a list of names, not {type(value).__name__}")
    try:
        checked = dict.fromkeys(map(fields.worker, listed))
    except InvalidJob as error:
        raise ConfigError(f"aliases: a worker's name {error.problem}") from None
    return tuple(name for name in checked if name != own_name)
