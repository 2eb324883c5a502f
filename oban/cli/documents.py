"""The types of what each command prints with `--json`, and their JSON Schema."""

from typing import Any

from oban.cli.config import Config
from oban.cli.schema import Installed, Uninstalled
from oban.cli.top.snapshot import Snapshot
from oban.diagnosis.explanation import Explanation
from oban.diagnosis.health_findings import Health
from oban.documents.jobs import Changes, JobDetails, JobDocument
from oban.periodic import PeriodicInfo
from oban.repository.nodes import NodeInfo
from oban.repository.queue_settings import QueueSettings
from oban.repository.stats import QueueStats, Stats

#: By command. docs/command_line.schema.json has the schema of each, which a test compares.
DOCUMENTS: dict[str, Any] = {
    "install": Installed,
    "check": Health,
    "config": Config,
    "jobs list": list[JobDocument],
    "jobs show": JobDetails,
    "jobs wait": JobDocument,
    "jobs cancel": Changes,
    "jobs retry": Changes,
    "jobs delete": Changes,
    "jobs update": Changes,
    "nodes": list[NodeInfo],
    "periodic list": list[PeriodicInfo],
    **{
        f"periodic {verb}": PeriodicInfo
        for verb in ("show", "pause", "resume", "add", "update", "reset", "delete")
    },
    "periodic run": JobDocument,
    "queues list": list[QueueStats],
    **{f"queues {verb}": list[QueueSettings] for verb in ("pause", "resume", "scale", "start", "stop")},
    "stats": Stats,
    "why": list[Explanation],
    "top": Snapshot,
    "uninstall": Uninstalled,
}


def json_schema() -> dict[str, Any]:
    """One JSON Schema, with a definition for the output of each command."""
    from pydantic import TypeAdapter

    inputs = [(command, "serialization", TypeAdapter(type_)) for command, type_ in DOCUMENTS.items()]
    references, schema = TypeAdapter.json_schemas(inputs)  # type: ignore[arg-type]
    commands = {command: reference for (command, _), reference in references.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What the commands of oban print with --json",
        "type": "object",
        "properties": commands,
        **schema,
    }
