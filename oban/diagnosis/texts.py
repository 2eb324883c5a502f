"""Parts of sentences about jobs and nodes, and the commands that advice names."""

import shlex
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from oban import error_texts
from oban.amounts import duration
from oban.config import Options
from oban.repository.job_facts import QueueProducer
from oban.type_expressions import LAST_TIME

#: How many names or ids a sentence lists.
MOST_LISTED = 5


def named(value: object) -> str:
    """A name in a sentence, in quotes if it has spaces or cannot be printed."""
    text = value if isinstance(value, str) else repr(value)
    return error_texts.log_safe(text if text and not text.isspace() and " " not in text else repr(text), 100)


def listed(names: Collection[object]) -> str:
    """The first few names, and how many more there are."""
    shown = [named(name) for name in list(names)[:MOST_LISTED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def node_names(nodes: Iterable[QueueProducer]) -> str:
    """The names of the first few nodes, each once, and how many more there are."""
    return listed(dict.fromkeys(node.node for node in nodes))


def at(time: object) -> str:
    """A time in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if isinstance(time, datetime) else "an unknown time"


def after(time: object, seconds: float, least: datetime) -> datetime:
    """The time so many seconds after another one, and not before `least`."""
    if not isinstance(time, datetime) or time == LAST_TIME:
        return least
    return max(least, time + timedelta(seconds=seconds))


def since(time: object, now: datetime) -> str:
    """A time and how long ago it was."""
    return (
        f"{at(time)}, {duration((now - time).total_seconds())} ago"
        if isinstance(time, datetime)
        else at(time)
    )


def sentence(text: str) -> str:
    """A text that another sentence can follow."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


class Commands:
    """Makes the commands for one instance, or for the instance of a node."""

    def __init__(self, options: Options) -> None:
        self._prefix, self._name = options.prefix, options.name
        self._default_name = Options.__dataclass_fields__["name"].default

    def jobs(self, verb: str, *arguments: str | int) -> str:
        return self._command("jobs", verb, *map(str, arguments), *self._schema())

    def queues(self, verb: str, queue: str, *arguments: str, instance: str | None = None) -> str:
        name = self._name if instance is None else instance
        of_instance = () if name == self._default_name else ("--name", name)
        return self._command("queues", verb, queue, *arguments, *of_instance, *self._schema())

    def start(self, queue: str | None = None) -> str:
        queues = () if queue is None else ("--queues", f"{queue}:10")
        return self._command("start", *queues, *self._schema())

    def why(self, job: str) -> str:
        return self._command("why", job, *self._schema())

    def install(self) -> str:
        return self._command("install", *self._schema())

    def _schema(self) -> Iterable[str]:
        return () if self._prefix is None else ("--prefix", self._prefix)

    @staticmethod
    def _command(*words: str) -> str:
        return " ".join(["oban", *map(_quoted, words)])


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # The shells that people use read this as the word.
    escaped = word.encode("unicode_escape").decode().replace("'", "\\'")
    return f"$'{escaped}'"
