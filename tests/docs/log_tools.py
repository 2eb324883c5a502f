"""Applications of pages about logging, run by `oban start` as the page says."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from oban import Job, SyncOban
from tests.docs.commands import OBAN, commands
from tests.docs.snippets import fenced
from tests.support.waiting import Deadline


def run_jobs(
    page: str,
    folder: Path,
    url: URL,
    jobs: Sequence[Job],
    ended: Callable[[str], bool],
    init: str = "",
    **variables: str,
) -> str:
    """Enqueue jobs and start the node of a page until its output shows that they have ended.

    Returns:
        All that the node has printed.
    """
    app = folder / "app"
    app.mkdir()
    (app / "__init__.py").write_text(init)
    (app / "jobs.py").write_text("\n\n".join(fenced(page, "python")))
    with SyncOban(url.set(drivername="sqlite")) as client:
        client.enqueue_many(list(jobs))
    [[_, *command]] = [found for found in commands(page) if found[:2] == ["oban", "start"]]
    output = folder / "output"
    with output.open("w") as file:
        node = subprocess.Popen(
            [*OBAN, *command],
            cwd=folder,
            env={**os.environ, "OBAN_DATABASE_URL": url.render_as_string(hide_password=False), **variables},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = Deadline(30)
        while not ended(output.read_text()) and node.poll() is None:
            assert not deadline.passed(), output.read_text()
            time.sleep(0.01)
        node.send_signal(signal.SIGTERM)
        assert node.wait() == 0, output.read_text()
    finally:
        node.kill()
        node.wait()
    return output.read_text()


def json_lines(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
