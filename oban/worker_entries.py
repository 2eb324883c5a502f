"""The periodic entries that the code of a process declares, and the args of their workers."""

from collections.abc import Iterable
from typing import Any

from oban import cron_options, encryption, fields
from oban.models import Job
from oban.periodic import Periodic, check_distinct
from oban.registry import registry


def declared_entries(instance: str, periodic: Iterable[Periodic]) -> list[Periodic]:
    """The entries of an instance: those of workers with `cron`, and `periodic`, the option of its client.

    A worker belongs to the instance that its option `oban` names. Workers that are defined later are found by
    a later call. Raises `ConfigError` if two entries have the same name.
    """
    workers = [cls for cls in dict.fromkeys(registry.values()) if cls._cron and cls._oban == instance]
    entries = [*map(_entry, workers), *periodic]
    check_distinct(entries)
    return entries


def _entry(cls: Any) -> Periodic:
    job = Job._from_checked(cron_options.job_fields(cls))
    return Periodic(cls._cron.name or cls.worker_name, job=job, **cls._cron.timing)


def check_args(worker: str, args: Any) -> dict[str, Any]:
    """The args of a worker's jobs as they are stored; the worker checks them if this process has it.

    Raises `InvalidJob`.
    """
    cls = registry.get(worker)
    if cls is None:
        return fields.args(args)
    if cls._encryption is not None:
        args = cls._encryption.plain(args)
    return encryption.sealed_alike(worker, cron_options.stored_args(cls, args))
