"""The application with FastAPI and SQLModel: migrated, served and run by the commands of its README."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from tests.examples.mail_provider import MailProvider
from tests.examples.processes import EXAMPLES, Process, finish, until
from tests.examples.processes import text as shown
from tests.support.databases import Factory

#: What the README lets a reader run: migrate, serve, run jobs, test.
README = (EXAMPLES / "sqlmodel_app" / "README.md").read_text()
COMMANDS = [line.split() for line in re.findall(r"^\$ ((?!curl ).*)$", README, re.MULTILINE)]
#: What the log says about a job that has failed.
(FAILED,) = re.findall(r"^```text\n(.*)\n```$", README, re.MULTILINE)
DATABASES = {
    "sqlite": ("sqlite_factory", "sqlite+aiosqlite"),
    "asyncpg": ("postgresql_factory", "postgresql+asyncpg"),
}


class Application:
    """The web server and the node, and a client of their HTTP interface."""

    def __init__(self, url: URL, folder: Path, mail: MailProvider) -> None:
        self.mail = mail
        variables = {"DATABASE_URL": shown(url), "MAIL_URL": mail.url}
        migrate, serve, run, _ = COMMANDS
        finish("-m", *migrate, **variables)
        self.server = Process(folder / "server.log", "-m", *serve, "--port", "0", **variables)
        self.node = Process(folder / "node.log", "-m", *run, "--log-format", "json", **variables)
        address = self.server.says(r"running on (http://[\d.:]+)").group(1)
        limits = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(timeout=30, limits=limits, base_url=address)
        self.node.says(r"runs mailers:5")

    def call(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """Send a request that must have this status; returns the JSON of the response."""
        answer = self.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    def sign_up(self, name: str, **headers: str) -> Any:
        new = {"name": name, "email": f"{name.lower()}@example.com"}
        return self.call("POST", "/members", new, status=201, **headers)

    def job_in(self, member: Any, state: str) -> Any:
        """Wait until the only job of a member is in a state; returns the job."""

        def found() -> Any:
            [job] = self.call("GET", f"/members/{member['id']}/jobs")
            return job if job["state"] == state else None

        return until(found)

    def close(self) -> None:
        for process in (self.server, self.node):
            process.kill()
        self.client.close()


@pytest.fixture(scope="module", params=DATABASES)
def application(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Application]:
    """The running application on a database that had no tables."""
    name, driver = DATABASES[request.param]
    factory: Factory = request.getfixturevalue(name)
    url = factory.create(empty=True)
    mail = MailProvider()
    try:
        made = Application(url.set(drivername=driver), tmp_path_factory.mktemp(request.param), mail)
        yield made
        made.close()
    finally:
        mail.close()
        factory.drop(url)


def test_a_member_is_welcomed_once_by_the_job_of_the_request(application: Application) -> None:
    ann = application.sign_up("Ann")
    job = application.job_in(ann, "completed")
    assert (job["attempt"], job["errors"]) == (1, [])
    mail = application.mail.accepted[f"welcome-{ann['id']}"]
    assert mail == {"to": "ann@example.com", "subject": "Welcome, Ann"}
    # Written in the transaction that completed the job.
    assert application.call("GET", f"/members/{ann['id']}") == {**ann, "welcomed": True}
    application.call("POST", "/members", {"name": "Ann", "email": "ann@example.com"}, status=409)


def test_a_report_waits_for_what_a_job_records(application: Application) -> None:
    before = application.call("POST", "/report")
    application.job_in(application.sign_up("Cleo"), "completed")
    after = application.call("POST", "/report")
    assert after == {key: before[key] + 1 for key in ("members", "welcomed")}


def test_a_failed_job_says_why_and_is_repaired_and_retried_over_http(application: Application) -> None:
    application.mail.refused.add("dan@example.com")
    dan = application.sign_up("Dan", **{"X-Request-ID": "dans-request"})
    failed = application.job_in(dan, "discarded")
    reason = "Refused: dan@example.com: no such mailbox"
    assert reason in failed["errors"][0]["error"]
    application.node.says(rf"{reason}.*\n")
    logged = [json.loads(line) for line in application.node.printed().splitlines()]
    (record,) = (found for found in logged if found.get("job_id") == failed["id"])
    assert record["level"] == "ERROR"
    expected = FAILED.replace("job 1", f"job {failed['id']}").replace("ann@example", "dan@example")
    assert record["message"] == expected
    # Set by the application's middleware.
    assert record["request_id"] == "dans-request"
    assert failed in application.call("GET", "/jobs?state=discarded")

    application.call("PUT", f"/members/{dan['id']}/email", {"email": "daniel@example.com"})
    assert application.call("POST", f"/jobs/{failed['id']}/retry")["state"] == "available"
    assert application.job_in(dan, "completed")["attempt"] == 2
    assert application.mail.accepted[f"welcome-{dan['id']}"]["to"] == "daniel@example.com"
    application.call("POST", "/jobs/1000000/retry", status=404)


def test_both_processes_stop_on_sigterm_and_the_node_closes_its_client(application: Application) -> None:
    for process, code in ((application.server, -signal.SIGTERM), (application.node, 0)):
        process.terminate()
        # After a clean shutdown, uvicorn raises the signal again.
        assert process.ended() == code, process.printed()
    # The lifespan of the node, around all its jobs.
    logged = re.findall(r"sending mail through|failed|closed the connections", application.node.printed())
    assert logged == ["sending mail through", "failed", "closed the connections"]
