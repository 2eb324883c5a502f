"""The cells of `docs/frameworks/notebooks.md` are run by IPython, on an event loop that runs all the time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from oban import JobState, SyncOban
from tests.docs.commands import commands
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

DOCUMENT = "docs/frameworks/notebooks.md"
CELLS = fenced(DOCUMENT, "python")
#: What the page says about other cells: the loop runs, a cell that is run again replaces its worker.
OTHERS = [
    "asyncio.run(oban.list_jobs())",
    CELLS[1].replace("round(loss, 4)", "'again'"),
    "job = await oban.wait(await oban.enqueue(Train.new({'rate': 0.1})), timeout=60)\n"
    "print(job.recorded, job.worker)",
    "class Heavy(Worker, executor='process', max_attempts=1):\n    def process(self, job): pass\n"
    "job = await oban.wait(await oban.enqueue(Heavy.new({})), timeout=60)\nprint(job.errors[-1]['error'])",
]


def test_the_cells_run_jobs_and_show_their_progress(tmp_path: Path) -> None:
    *before, stop = CELLS
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.docs.notebook_cells"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")},
        input=json.dumps([*before, *OTHERS, stop]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    printed = [result["printed"] for result in results]
    running, *others = [result["error"] for result in results if result["error"]]
    assert (running, others) == ("RuntimeError: asyncio.run() cannot be called from a running event loop", [])
    losses, progress = fenced(DOCUMENT, "text")
    assert losses in printed
    # What clears the output comes before it, in a terminal as in a notebook.
    assert any(each.endswith(progress) for each in printed)
    assert "0 jobs run again\n" in printed
    assert "{'loss': 'again'} __main__.Train\n" in printed
    assert re.search(r"a child process cannot find '__main__.Heavy'", "".join(printed))
    with SyncOban(f"sqlite:///{tmp_path}/notebook.db") as oban:
        assert {job.state for job in oban.list_jobs()} == {JobState.COMPLETED, JobState.DISCARDED}


def test_the_command_runs_jobs_on_the_database_of_the_notebook() -> None:
    ((*_, start, option, url, imports, module),) = commands(DOCUMENT)
    assert (start, option, imports, module) == ("start", "--database-url", "--import", "jobs")
    assert url in CELLS[0]
