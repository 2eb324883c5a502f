"""Creates the jobs of workers: their args as they are stored, and the fields that differ from the options."""

from copy import deepcopy
from typing import Any, Literal

from oban import arguments, fields, main_module, suggestions, unique
from oban.errors import ConfigError, InvalidJob
from oban.fields import Overrides
from oban.models import Job
from oban.unique import Unique


def create(worker: Any, call: str, args: Any, overrides: Overrides) -> Job:
    """Create a job of a worker's class, for `call`, the name of the method that the caller has used.

    Raises `InvalidJob`, and `ConfigError` for a class that is only a base of workers.
    """
    if worker._why_base is not None:
        raise ConfigError(f"{worker.__qualname__} {worker._why_base}")
    if overrides and (unknown := [name for name in overrides if name not in fields.SETTABLE]):
        raise InvalidJob(unknown[0], f"cannot be set; {_explanation(worker, call, unknown)}")
    stored = _stored_args(worker, args)
    if worker._is_in_script:
        worker._is_in_script = main_module.job_created(worker.worker_name)
    if not (overrides or worker._mutable or worker._redacted):
        return Job._from_template(worker._template, stored)
    checked = fields.check(overrides)
    if checked.get("unique"):
        check_keys(worker, checked["unique"])
    # Each job needs its own list or dict.
    own = deepcopy(worker._mutable)
    return Job._from_checked({**worker._defaults, **own, "args": stored, **checked})


def check_keys(worker: Any, rule: Unique | Literal[False] | None) -> None:
    """Raise `InvalidJob` if the option `unique` of a job names a key that the args cannot have."""
    try:
        unique.check_known_keys(rule, worker._arg_names)
    except ConfigError as error:
        raise InvalidJob("unique", str(error).removeprefix("unique: ")) from None


def _stored_args(worker: Any, args: Any) -> dict[str, Any]:
    encryption, declared = worker._encryption, worker._arguments
    if encryption is not None:
        # They can be those of another job, such as `job.args` of one that was loaded.
        args = encryption.plain(args)
    if declared is None:
        stored = {} if args is None else fields.args(args)
    elif worker._has_secrets:
        with arguments.without_values(args, worker._redacted, everything=encryption is not None):
            stored = declared.dump(args, worker.worker_name)
    else:
        stored = declared.dump(args, worker.worker_name)
    return stored if encryption is None else encryption.seal(stored)


def _explanation(worker: Any, call: str, unknown: list[str]) -> str:
    """What the caller can have meant by keywords that are not options: a similar option, or args."""
    example = arguments.example(worker._declared, unknown)
    kind = "a dict" if example.startswith("{") else "an object"
    advice = f"pass args as {kind}: {worker.__name__}.{call}({example})"
    similar = suggestions.similar(unknown[0], fields.SETTABLE)
    return f"did you mean {similar}? If it is one of the args, {advice}" if similar else advice
