"""What the pages of `docs/coming_from/` show of other queues, which the tests do not install.

Each entry was recorded after the blocks of the page had run with that version: what they import, and every
attribute and keyword that belongs to the other library. A block that uses another name fails its test until
somebody has run it again and recorded the name here.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.docs.snippets import fenced

_FILE = re.compile(r"# (?P<path>\S+\.py)(?:, with (?P<peer>[\w-]+)(?P<moving>, while you move)?)?\n")
#: What blocks of the other side call on our jobs.
_OURS = ("new", "with_options")


@dataclass(frozen=True)
class File:
    """A block whose first line names its file, and the peer that it is written for, if any."""

    path: str
    peer: str | None
    moving: bool
    code: str


@dataclass(frozen=True)
class Peer:
    """A version that has run the blocks of its page, and the names that they use."""

    version: str
    imports: dict[str, set[str]]
    names: set[str]


PEERS = {
    "Celery": Peer(
        "5.7",
        {"celery": {"Celery"}, "celery.schedules": {"crontab"}},
        {
            *("Celery.broker", "Celery.backend", "app.conf", "conf.timezone", "conf.beat_schedule"),
            *("crontab.hour", "crontab.minute", "app.task", "self.request"),
            *("task.bind", "task.queue", "task.acks_late", "task.autoretry_for", "task.default_retry_delay"),
            *("task.max_retries", "task.time_limit"),
            *("send_receipt.delay", "ask_for_review.apply_async", "apply_async.countdown"),
        },
    ),
    "RQ": Peer(
        "3.0",
        {"rq": {"Queue", "Retry", "cron", "get_current_job"}, "redis": {"Redis"}},
        {
            *("Queue.connection", "Redis.from_url", "Retry.max", "Retry.interval"),
            *("mailers.enqueue", "mailers.enqueue_in", "enqueue.retry"),
            *("cron.register", "register.queue_name", "register.cron", "register.job_timeout"),
            *("queue.scheduled_job_registry", "queue.fetch_job", "registry.get_job_ids"),
            *(
                "registry.get_scheduled_time",
                "old.id",
                "old.func_name",
                "old.args",
                "old.kwargs",
                "old.delete",
            ),
        },
    ),
    "arq": Peer(
        "0.28",
        {"arq": {"Retry", "cron"}, "arq.connections": {"RedisSettings"}},
        {
            *("RedisSettings.from_dsn", "Retry.defer", "cron.hour", "cron.minute", "cron.timeout"),
            *("redis.enqueue_job", "enqueue_job._defer_by"),
        },
    ),
    "Dramatiq": Peer(
        "2.2",
        {
            "dramatiq": {""},
            "dramatiq.brokers.redis": {"RedisBroker"},
            "dramatiq.middleware": {"CurrentMessage"},
            "apscheduler.schedulers.blocking": {"BlockingScheduler"},
            "apscheduler.triggers.cron": {"CronTrigger"},
        },
        {
            *("dramatiq.set_broker", "RedisBroker.url", "broker.add_middleware", "dramatiq.actor"),
            *("actor.queue_name", "actor.max_retries", "actor.min_backoff", "actor.throws"),
            *("actor.time_limit", "send_receipt.send", "ask_for_review.send_with_options"),
            *("send_with_options.args", "send_with_options.delay", "sales_report.send"),
            *("CurrentMessage.get_current_message", "message.message_id"),
            *("scheduler.add_job", "scheduler.start", "CronTrigger.from_crontab"),
        },
    ),
    "Procrastinate": Peer(
        "3.10",
        {"procrastinate": {"App", "PsycopgConnector", "RetryStrategy"}},
        {
            *("App.connector", "PsycopgConnector.conninfo", "app.task", "app.periodic", "task.queue"),
            *("task.retry", "task.queueing_lock", "periodic.cron", "send_receipt.configure"),
            *("RetryStrategy.max_attempts", "RetryStrategy.wait", "RetryStrategy.retry_exceptions"),
            *("ask_for_review.configure", "configure.connection", "configure.schedule_in"),
            *("configure.defer_async", "later.defer_async", "defer_async.order_id", "defer_async.address"),
        },
    ),
    "APScheduler": Peer(
        "3.11",
        {
            "apscheduler.jobstores.sqlalchemy": {"SQLAlchemyJobStore"},
            "apscheduler.schedulers.background": {"BackgroundScheduler"},
            "apscheduler.triggers.cron": {"CronTrigger"},
            "apscheduler.triggers.date": {"DateTrigger"},
        },
        {
            *("SQLAlchemyJobStore.engine", "BackgroundScheduler.jobstores", "BackgroundScheduler.timezone"),
            *("BackgroundScheduler.job_defaults", "CronTrigger.from_crontab", "from_crontab.timezone"),
            *("scheduler.add_job", "scheduler.start", "scheduler.shutdown", "scheduler.get_jobs"),
            *("add_job.args", "add_job.run_date", "add_job.id", "add_job.replace_existing", "start.paused"),
            *("old.id", "old.next_run_time", "old.func_ref", "old.args", "old.trigger", "old.remove"),
        },
    ),
    "oban-py": Peer(
        "0.7",
        {},
        {
            *("worker.queue", "worker.max_attempts", "worker.cron", "job.args"),
            *("SendReceipt.enqueue", "AskForReview.enqueue", "enqueue.conn", "enqueue.scheduled_in"),
        },
    ),
}


def files(page: str) -> list[File]:
    """Return the blocks of Python of a page that name their file."""
    found = []
    for code in fenced(page, "python"):
        match = _FILE.match(code)
        if match:
            found.append(File(match["path"], match["peer"], bool(match["moving"]), code))
    return found


def foreign_imports(code: str, ours: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Return the modules and names that a block imports, but for those of `ours` and the standard library."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if node.module.partition(".")[0] not in ours:
                    yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] not in ours:
                    yield alias.name, ""


def used_names(code: str, of: set[str]) -> set[str]:
    """Return `owner.name` for attributes and keywords in a block whose owner is one of `of`."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            found.add((_last(node.value), node.attr))
        elif isinstance(node, ast.Call):
            found.update((_last(node.func), keyword.arg) for keyword in node.keywords if keyword.arg)
    return {f"{owner}.{name}" for owner, name in found if owner in of and name not in _OURS}


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
