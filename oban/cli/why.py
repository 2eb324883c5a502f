"""`oban why`."""

import sys

import click

from oban.cli import output
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.cli.job_filters import ID
from oban.diagnosis.explanation import Explanation, Reason
from oban.diagnosis.texts import named


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True, type=ID)
@of_instance
@output.json_option
def why(job_ids: tuple[int, ...], instance: Instance, as_json: bool) -> None:
    """Explain why jobs do not run, and what to do about it.

    The first line of each answer is the decisive reason. If there are further ones, they follow. The exit
    code is 1 if one of the jobs does not exist.
    """
    asked = list(dict.fromkeys(job_ids))
    explanations = instance.operate(lambda operations: operations.why(asked))
    if as_json:
        output.document(DOCUMENTS["why"], explanations)
    else:
        for number, explanation in enumerate(explanations):
            if number:
                click.echo()
            _print(explanation)
    if any(explanation.queue is None for explanation in explanations):
        sys.exit(1)


def _print(explanation: Explanation) -> None:
    first, *others = explanation.reasons
    output.paragraph(f"{_subject(explanation)}: {first.text}", style="bold")
    _print_advice(first)
    for reason in others:
        click.echo()
        output.paragraph(f"Also: {reason.text}")
        _print_advice(reason)


def _subject(explanation: Explanation) -> str:
    if explanation.queue is None:
        return f"Job {explanation.job_id}"
    state = explanation.state or "unknown state"
    about = ", ".join((state, f"queue {named(explanation.queue)}", f"worker {named(explanation.worker)}"))
    return f"Job {explanation.job_id} ({about})"


def _print_advice(reason: Reason) -> None:
    output.paragraph(reason.advice, indent=2)
    for command in reason.commands:
        output.command_line(command, indent=4)
