"""A SQLAlchemy-native job queue that lives in your application's own database."""

from oban import filters
from oban.client import Oban
from oban.config import QueueOptions, Retention
from oban.errors import InvalidJob, JobNotFound, ObanError
from oban.fields import JobUpdate
from oban.job_function import job
from oban.middleware import CallNext, Middleware
from oban.models import Job
from oban.outcomes import Cancel, Discard, Record, Snooze
from oban.repository.cluster import QueueInfo
from oban.resources import Resource, injected
from oban.sync_client import SyncOban
from oban.types import JobState
from oban.worker import Worker, current_job
from oban.worker_decorator import worker

__version__ = "0.1.0"

__all__ = [
    "CallNext",
    "Cancel",
    "Discard",
    "InvalidJob",
    "Job",
    "JobNotFound",
    "JobState",
    "JobUpdate",
    "Middleware",
    "Oban",
    "ObanError",
    "QueueInfo",
    "QueueOptions",
    "Record",
    "Resource",
    "Retention",
    "Snooze",
    "SyncOban",
    "Worker",
    "current_job",
    "filters",
    "injected",
    "job",
    "worker",
]
