"""How a run ended: turns what `process` returned or raised into an outcome that can be stored."""

import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any

from oban import encoding, error_rules, error_texts, forks
from oban.error_rules import Rule, Rules
from oban.errors import ConfigError, InvalidJob
from oban.models import Job
from oban.outcomes import Cancel, Discard, RaisableOutcome, Record, Snooze
from oban.worker import Worker

#: The fields of an `Ack` that do not identify the run.
Outcome = dict[str, Any]

#: The modules that call `process` and middleware.
_AROUND_JOBS = {
    "oban.compat.greenlets",
    "oban.job_function",
    "oban.middleware",
    "oban.runner.execution.executor",
    "oban.runner.execution.job_session_threads",
    "oban.runner.execution.outcome",
    "oban.runner.execution.process_call",
    "oban.runner.execution.process_run",
    "oban.runner.execution.thread_run",
    "oban.runner.processes.child",
    "oban.testing.sessions",
}
#: Used like this because a class can replace the attribute, and this must not raise.
_traceback: Any = BaseException.__dict__["__traceback__"]


class AttemptFailed(Exception):
    """An attempt failed for a known reason, so that its stored error needs no traceback.

    Args:
        error: The reason.
        before: What `errors` has before the reason.
    """

    def __init__(self, error: Exception, before: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        #: What is stored in `errors`.
        self.text = error_texts.sanitize(f"{before}{type(error).__name__}: {error}")


def hide_own_frames(error: BaseException) -> None:
    """Remove this library's calls around a job from a traceback, so that it shows the application's code.

    A traceback without any other calls stays as it is: the library itself has raised the exception.
    """
    shown = []
    entry = _traceback.__get__(error)
    while entry is not None:
        if entry.tb_frame.f_globals.get("__name__") not in _AROUND_JOBS:
            shown.append(entry)
        entry = entry.tb_next
    following = None
    for entry in reversed(shown):
        following = TracebackType(following, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    if following is not None:
        _traceback.__set__(error, following)


class Result:
    """What a call has returned, or raised, passed on between a thread or a process and the event loop.

    A future cannot raise every exception itself: StopIteration, for example.
    """

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    @classmethod
    def of(cls, call: Callable[..., Any], *args: Any) -> "Result":
        """Call a function. Never raises."""
        try:
            return cls(call(*args))
        except BaseException as error:
            return cls(error=error)
        finally:
            if forks.is_child:
                forks.leave()

    def unwrap(self) -> Any:
        """Return the value, or raise the exception, which can be done once."""
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            raise error
        finally:
            # Its traceback refers to everybody who has this result. Nobody may refer to it in turn, or it
            # would only be freed, with the job and its session, by a garbage collection.
            del error


class RemoteTraceback(Exception):
    """The cause of an exception from a child process: `text` is the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}\n"""'


class RemoteError(Exception):
    """Takes the place of an exception from a child process that cannot be made again in the node.

    `rule` is what the worker's options say about the original.
    """

    def __init__(self, message: str, rule: Rule | None) -> None:
        super().__init__(message)
        self.rule = rule


def open_args(worker: Worker[Any], job: Job) -> None:
    """Decrypt the args of a job for its worker. Raises `AttemptFailed` if that does not have the key."""
    cipher = worker._encryption
    if cipher is not None:
        try:
            job.__dict__["args"] = cipher.plain(job.__dict__["args"])
        except (InvalidJob, ConfigError) as error:
            raise AttemptFailed(error) from None


def process_arguments(worker: Worker[Any], job: Job) -> dict[str, Any]:
    """What `process` takes in addition to the job and a session.

    Raises `AttemptFailed` if the job's args do not fit the declared type.
    """
    if "args" not in worker.takes:
        return {}
    try:
        return {"args": worker.args_of(job)}
    except InvalidJob as error:
        raise AttemptFailed(error) from None


def from_result(result: object) -> Outcome:
    """The outcome of a run whose `process` returned `result`. Raises what reading the value raises.

    Raises `AttemptFailed` for a class instead of an outcome, and for what has not run yet.
    """
    match result:
        case Cancel():
            return {"outcome": "cancelled", "error": _reason(result.reason)}
        case Discard():
            return {"outcome": "discarded", "error": _reason(result.reason)}
        case Snooze():
            outcome: Outcome = {"outcome": "snoozed", "delay": result.delay}
            if result.meta:
                outcome["meta"] = encoding.json_object(result.meta, "meta")
            return outcome
        case Record():
            # `Record` has checked the value, but the worker can have changed a list or dict in it since.
            value = encoding.json_value(result.value, "Record")
            return {"outcome": "completed", "value": encoding.dumps(value)}
        case _:
            _check_ended(result)
            return {"outcome": "completed"}


def _check_ended(result: object) -> None:
    """Refuse results with which the work of the job would silently not be done."""
    if isinstance(result, type):
        if not issubclass(result, (RaisableOutcome, Record)):
            return
        name = result.__qualname__
        problem = f"the class {name}: return an instance, such as {name}(…)"
    elif inspect.isgenerator(result) or inspect.isasyncgen(result):
        problem = "a generator, which nobody runs"
    elif inspect.isawaitable(result):
        problem = f"an object of the type {type(result).__qualname__} that nobody awaits: await it"
        if inspect.iscoroutine(result):
            # Closed, so that Python does not warn about it in addition.
            result.close()
    else:
        return
    raise AttemptFailed(TypeError(f"process returned {problem}"))


def from_error(error: BaseException, rules: Rules) -> Outcome:
    """The outcome of a run whose `process` raised `error`, by the rules of its worker. Never raises."""
    if is_outcome(error):
        try:
            return from_result(error)
        # A subclass can do anything in its methods.
        except BaseException as other:
            return {"outcome": "failed", "error": error_texts.error_text(other)}
    reason = error.error if type(error) is AttemptFailed else error
    # A stand-in has no class that a rule can be about.
    is_stand_in = issubclass(type(reason), RemoteError)
    rule = reason.__dict__.get("rule") if is_stand_in else error_rules.rule_for(rules, reason)
    if rule is None:
        return {"outcome": "failed", "error": _text(error)}
    if rule.outcome == "snoozed":
        return {"outcome": "snoozed", "delay": rule.delay}
    return {"outcome": rule.outcome, "error": _text(error), "delay": rule.delay}


def is_outcome(error: BaseException | None) -> bool:
    """Whether an exception is `Cancel`, `Discard` or `Snooze`, which workers can raise."""
    # isinstance() would read the exception's `__class__`, which can raise.
    return issubclass(type(error), RaisableOutcome)


def _text(error: BaseException) -> str:
    if type(error) is AttemptFailed:
        return error.text
    # The class can have replaced the attribute.
    cause = BaseException.__dict__["__cause__"].__get__(error)
    return cause.text if type(cause) is RemoteTraceback else error_texts.error_text(error)


def _reason(reason: object) -> str:
    try:
        return error_texts.sanitize(str(reason))
    except BaseException:
        return "decided by its worker; the reason could not be printed"
