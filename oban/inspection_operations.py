"""The questions about an instance that `Oban` and `SyncOban` answer, with the documentation for both."""

from abc import ABC
from typing import Generic

from oban.enqueue_operations import CallerT


class InspectionOperations(ABC, Generic[CallerT]):
    """Ask what the jobs, queues and nodes of this instance do, and why. These calls change nothing."""
