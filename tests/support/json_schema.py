"""Writes `docs/command_line.schema.json`: `python -m tests.support.json_schema`."""

import json

from oban.cli.documents import json_schema
from tests.support.processes import ROOT

if __name__ == "__main__":
    text = json.dumps(json_schema(), indent=2)
    (ROOT / "docs" / "command_line.schema.json").write_text(f"{text}\n")
