"""`Tracing`: the trace of an attempt, for code that must not import OpenTelemetry."""

from typing import Protocol


class Tracing(Protocol):
    """The trace of an attempt that runs."""

    def carrier(self) -> dict[str, str]:
        """The current context, for a child process that runs the job."""
