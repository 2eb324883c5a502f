"""`Explanation` and `Reason`: what `why` returns."""

from dataclasses import dataclass

from oban.types import JobState


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a job does not run, or what it waits for.

    Attributes:
        code: A word for programs, such as `paused`. docs/guides/diagnosing.md lists all of them.
        text: A sentence for people.
        advice: What to do about it, in a sentence.
        commands: The commands of a shell that do it, each in a line of its own. If there are several, each is
            one way, or the next step, as `advice` says.
    """

    code: str
    text: str
    advice: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job does or does not run.

    Attributes:
        job_id: The id of the job.
        state: Its state; None if there is no such job, or if its state is none of Oban's.
        queue: Its queue; None if there is no such job.
        worker: The name of its worker; None if there is no such job.
        runs: Whether a node that is alive executes it now.
        reasons: All reasons, the decisive one first. There is always one: that of a job that executes says
            where.
    """

    job_id: int
    state: JobState | None
    queue: str | None
    worker: str | None
    runs: bool
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        """The reasons as text, each with its advice."""
        lines = []
        for reason in self.reasons:
            lines.append(f"{reason.text} {reason.advice}")
            lines.extend(f"    {command}" for command in reason.commands)
        return "\n".join(lines)
