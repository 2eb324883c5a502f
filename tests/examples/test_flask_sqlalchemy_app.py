"""The application with Flask-SQLAlchemy: migrated, served and run by the commands of its README."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from tests.examples.processes import EXAMPLES, Process, until
from tests.examples.processes import text as shown
from tests.support.databases import Factory

README = (EXAMPLES / "flask_sqlalchemy_app" / "README.md").read_text()
#: What the README lets a reader run, and send with curl.
CONSOLE = [shlex.split(line) for line in re.findall(r"^\$ (.*)$", README, re.MULTILINE)]
COMMANDS = [words for words in CONSOLE if words[0] != "curl"]
REQUESTS = [words for words in CONSOLE if words[0] == "curl"]
DATABASES = {
    "sqlite": ("sqlite_factory", "sqlite"),
    "psycopg": ("postgresql_factory", "postgresql+psycopg"),
}


class Application:
    """The web server and the node, and a client of their HTTP interface."""

    def __init__(self, url: URL, folder: Path) -> None:
        # gunicorn writes a file for its own purposes to HOME.
        self.variables = {"DATABASE_URL": shown(url), "HOME": str(folder)}
        self.folder = folder
        self.processes: list[Process] = []
        self.migrate, serve, run, _ = COMMANDS
        self.flask(*self.migrate)
        self.server = self._process("server", *serve, "--bind", "127.0.0.1:0")
        self.node = self._process("node", *run)
        address = self.server.says(r"Listening at: (http://[\d.:]+)").group(1)
        limits = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(timeout=30, limits=limits, base_url=address)
        self.node.says(r"runs invoices:5")

    def _process(self, name: str, *command: str) -> Process:
        process = Process(self.folder / f"{name}.log", "-m", *command, **self.variables)
        self.processes.append(process)
        return process

    def flask(self, *command: str) -> str:
        """Run a command of Flask that must succeed; returns its output."""
        process = self._process("flask", *command)
        assert process.ended() == 0, process.printed()
        return process.printed()

    def call(self, method: str, path: str, json: Any = None, *, status: int = 200) -> Any:
        """Send a request that must have this status; returns the JSON of the response."""
        answer = self.client.request(method, path, json=json)
        assert answer.status_code == status, answer.text
        return answer.json()

    def job_in(self, invoice: Any, worker: str, state: str) -> Any:
        """Wait until the invoice's job of a worker is in a state; returns the job."""

        def found() -> Any:
            jobs = self.call("GET", f"/invoices/{invoice['id']}/jobs")
            return next((job for job in jobs if (job["worker"], job["state"]) == (worker, state)), None)

        return until(found)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.client.close()


CALCULATE, SEND = ("flask_sqlalchemy_app.jobs.Calculate", "flask_sqlalchemy_app.jobs.Send")


@pytest.fixture(scope="module", params=DATABASES)
def application(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Application]:
    """The running application on a database that had no tables."""
    name, driver = DATABASES[request.param]
    factory: Factory = request.getfixturevalue(name)
    url = factory.create(empty=True)
    try:
        made = Application(url.set(drivername=driver), tmp_path_factory.mktemp(request.param))
        yield made
        made.close()
    finally:
        factory.drop(url)


def curl(application: Application, words: list[str], **ids: int) -> Any:
    """Send the request of a command of the README, with the ids of this run in its path."""
    options = dict(pairwise(words))
    address = next(word for word in words if word.startswith("localhost:8000"))
    path = address.removeprefix("localhost:8000")
    for name, id_ in ids.items():
        path = path.replace(f"/{name}/1", f"/{name}/{id_}")
    answer = application.client.request(
        options.get("-X", "POST" if "-d" in options else "GET"),
        path,
        content=options.get("-d"),
        headers=dict([options["-H"].split(": ")]) if "-H" in options else {},
    )
    assert answer.is_success, answer.text
    return answer.json()


def test_a_failed_job_says_why_and_is_repaired_and_retried(application: Application) -> None:
    order, failed, set_rate, retry, show = REQUESTS
    invoice = curl(application, order)
    application.node.says(
        rf"WARNING .*\({CALCULATE}\) failed, attempt 1 of 5, retrying in \d+ s:"
        r" LookupError: there is no tax rate for CH"
    )
    # The outcome is stored after it is logged.
    [job] = until(lambda: curl(application, failed))
    assert (job["worker"], job["attempt"]) == (CALCULATE, 1)
    [error] = job["errors"]
    assert "billing.py" in error["error"]
    assert "LookupError: there is no tax rate for CH" in error["error"]

    assert curl(application, set_rate) == {"country": "CH", "percent": 8}
    curl(application, retry, jobs=job["id"])
    assert application.job_in(invoice, CALCULATE, "completed")["attempt"] == 2
    application.job_in(invoice, SEND, "completed")
    application.node.says(f"to ann@example.com: invoice {invoice['id']} over 10800 cents")
    assert curl(application, show, invoices=invoice["id"]) == {**invoice, "gross": 10_800, "sent": True}


def test_jobs_that_ended_and_unknown_states_are_refused(application: Application) -> None:
    application.call("PUT", "/rates/DE", {"percent": 19})
    new = {"email": "ann@example.com", "country": "DE", "net": 100}
    invoices = [application.call("POST", "/invoices", new, status=201) for _ in range(10)]
    for invoice in invoices:
        application.job_in(invoice, SEND, "completed")
        assert application.call("GET", f"/invoices/{invoice['id']}")["gross"] == 119
    application.call("POST", "/jobs/1000000/retry", status=404)
    application.call("GET", "/jobs?state=broken", status=422)


def test_the_migrations_create_what_the_models_describe(application: Application) -> None:
    check = [*application.migrate[:-1], "check"]
    assert "No new upgrade operations detected" in application.flask(*check)


def test_the_server_and_the_node_stop_when_asked(application: Application) -> None:
    for process in (application.server, application.node):
        process.terminate()
        assert process.ended() == 0
        assert not re.search("ERROR|CRITICAL", process.printed()), process.printed()
