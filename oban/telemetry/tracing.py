"""What the rest of Oban knows about traces, without an import of OpenTelemetry."""

from typing import Protocol


class Tracing(Protocol):
    """The trace of an attempt that runs."""

    def carrier(self) -> dict[str, str]:
        """The current context, for a child process that runs the job."""
