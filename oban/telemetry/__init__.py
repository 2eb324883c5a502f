"""Telemetry: typed events about jobs, services and changes, for handlers that are attached to them.

`oban.telemetry.attach(handler, JobEnded)` attaches a handler to one client, and the function `attach` of this
module to every client of the process. Without a handler, an event is not even created.
"""

from oban.telemetry.events import (
    Event,
    JobEnded,
    JobEvent,
    JobsEnqueued,
    JobStarted,
)
from oban.telemetry.handlers import Handler, Telemetry, attach
from oban.telemetry.views import JobView

__all__ = [
    "Event",
    "Handler",
    "JobEnded",
    "JobEvent",
    "JobStarted",
    "JobView",
    "JobsEnqueued",
    "Telemetry",
    "attach",
]
