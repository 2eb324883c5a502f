"""The applications of `docs/guides/dashboard_mounting.md` show the dashboard, and change jobs through it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL
from starlette.testclient import TestClient

from oban import Job, SyncOban
from oban.web import Dashboard
from tests.docs.snippets import fenced
from tests.support.processes import ROOT
from tests.support.waiting import eventually

SHARED, *BLOCKS = fenced("docs/guides/dashboard_mounting.md", "python")
NAMES = ["starlette", "fastapi", "litestar", "uvicorn", "flask"]
HEADERS = {"Sec-Fetch-Site": "same-origin"}
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


def source(name: str) -> str:
    return SHARED + "\n\n" + BLOCKS[NAMES.index(name)]


@pytest.fixture
def jobs(sqlite_url: URL) -> Iterator[SyncOban]:
    with SyncOban(sqlite_url.set(drivername="sqlite")) as made:
        yield made


@pytest.fixture
def load(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Runs an application of the page as a module."""

    def load(name: str) -> ModuleType:
        monkeypatch.setenv("DATABASE_URL", sqlite_url.render_as_string(hide_password=False))
        # It would run in the processes that later tests fork.
        monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
        module = ModuleType(f"{name}_page")
        exec(compile(source(name), name, "exec"), module.__dict__)
        return module

    return load


def be_patient(board: Dashboard) -> None:
    """On a busy machine, a page can take longer than a request may."""
    for each in board.instances:
        each.sessions.timeout = 60.0


def delayed(jobs: SyncOban) -> int:
    job = jobs.enqueue(Job(worker="app.Mail", schedule_in=3600))
    assert job.id is not None
    return job.id


def state(jobs: SyncOban, job_id: int) -> str:
    found = jobs.get_job(job_id)
    assert found is not None
    return found.state


@pytest.mark.parametrize("name", ["starlette", "fastapi", "uvicorn"])
def test_an_asgi_application_shows_the_dashboard_and_cancels_a_job(
    name: str, load: Callable[[str], Any], jobs: SyncOban
) -> None:
    module, path, job_id = load(name), "" if name == "uvicorn" else "/oban", delayed(jobs)
    be_patient(module.board)
    with TestClient(module.app, headers=HEADERS, follow_redirects=False) as client:
        # Without a login, the way leads to the application's login page.
        refused = client.get(f"{path}/")
        assert (refused.status_code, refused.headers["Location"]) == (303, "/login")
        client.cookies["user"] = "ada"
        assert "Overview" in client.get(f"{path}/").text
        shown = client.get(f"{path}/jobs/{job_id}").text
        # Every address begins with the path that the dashboard is mounted at.
        assert f'href="{path}/static/app.css' in shown
        assert "app.Mail" in shown
        [token, *_] = TOKEN.findall(shown)
        done = client.post(f"{path}/jobs/{job_id}/cancel", data={"csrf_token": token})
        assert done.status_code == 303
        assert state(jobs, job_id) == "cancelled"
        # What the application runs at its end has closed the dashboard, on its own event loop.
    assert module.board.instances[0].live.is_full
    asyncio.run(module.oban.engine.dispose())


def test_a_wsgi_application_shows_the_dashboard_and_cancels_a_job(
    load: Callable[[str], Any], jobs: SyncOban
) -> None:
    module, job_id = load("flask"), delayed(jobs)
    client = module.app.test_client()
    mounted = module.app.wsgi_app.mounts["/oban"]
    be_patient(mounted.app)
    try:
        refused = client.get("/oban/")
        assert (refused.status_code, refused.headers["Location"]) == (303, "/login")
        client.set_cookie("user", "ada")
        assert "Overview" in client.get("/oban/").text
        # No page holds a thread of the server for a stream.
        assert client.get("/oban/events").status_code == 204
        shown = client.get(f"/oban/jobs/{job_id}").text
        assert 'href="/oban/static/app.css' in shown
        assert 'data-live="poll"' in shown
        [token, *_] = TOKEN.findall(shown)
        done = client.post(f"/oban/jobs/{job_id}/cancel", data={"csrf_token": token}, headers=HEADERS)
        assert done.status_code == 303
        assert state(jobs, job_id) == "cancelled"
    finally:
        asyncio.run_coroutine_threadsafe(mounted.app.aclose(), mounted.loop).result()
        asyncio.run_coroutine_threadsafe(module.oban.engine.dispose(), mounted.loop).result()
        mounted.loop.call_soon_threadsafe(mounted.loop.stop)
    asyncio.run(eventually(lambda: not mounted.loop.is_running()))
    mounted.loop.close()


# Slow, since Litestar needs a process of its own: it sets up the logging of the whole process.
@pytest.mark.slow
async def test_litestar_shows_the_dashboard_and_cancels_a_job(
    sqlite_url: URL, jobs: SyncOban, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(source("litestar"))
    socket, job_id = tmp_path / "socket", delayed(jobs)
    command = [sys.executable, "-m", "uvicorn", "--uds", str(socket), "--log-level", "warning", "app:app"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=environment(tmp_path, sqlite_url)
    )
    try:
        await eventually(socket.exists)
        async with visit(socket) as client:
            shown = (await client.get(f"/oban/jobs/{job_id}")).text
            assert 'href="/oban/static/app.css' in shown
            [token, *_] = TOKEN.findall(shown)
            done = await client.post(f"/oban/jobs/{job_id}/cancel", data={"csrf_token": token})
            assert done.status_code == 303
        assert state(jobs, job_id) == "cancelled"
    finally:
        process.terminate()
        await process.wait()


def environment(folder: Path, url: URL) -> dict[str, str]:
    """The variables of a server that finds the application in a folder."""
    text = url.render_as_string(hide_password=False)
    return {**os.environ, "DATABASE_URL": text, "PYTHONPATH": f"{folder}:{ROOT}"}


def visit(socket: Path) -> httpx2.AsyncClient:
    """A client who is logged in, and makes a new connection for each request."""
    return httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=str(socket)),
        base_url="http://localhost",
        headers={**HEADERS, "Connection": "close"},
        cookies={"user": "ada"},
        timeout=60,
    )


class Gunicorn:
    """The Flask application under gunicorn, with two processes that write which one has answered."""

    def __init__(self, folder: Path, url: URL, options: list[str]) -> None:
        (folder / "app.py").write_text(source("flask"))
        self.socket, self.log, self.errors = folder / "socket", folder / "log", folder / "errors"
        command = [
            *(sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "2", *options),
            *("--bind", f"unix:{self.socket}", "--access-logfile", str(self.log)),
            *("--access-logformat", "%(p)s %(m)s %(s)s", "--error-logfile", str(self.errors), "app:app"),
        ]
        self.process = subprocess.Popen(command, cwd=folder, env=environment(folder, url))

    def answered(self, method: str, status: int) -> set[str]:
        """The processes that have answered requests in this way."""
        lines = [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return {process for process, *rest in lines if rest == [method, str(status)]}


@pytest.fixture(params=[[], ["--preload"]], ids=["workers import", "fork after the import"])
def gunicorn(request: pytest.FixtureRequest, sqlite_url: URL, tmp_path: Path) -> Iterator[Gunicorn]:
    made = Gunicorn(tmp_path, sqlite_url, request.param)
    yield made
    made.process.send_signal(signal.SIGTERM)
    assert made.process.wait(30) == 0, made.errors.read_text()


@pytest.mark.slow
async def test_each_process_of_gunicorn_accepts_the_forms_of_the_other(
    gunicorn: Gunicorn, jobs: SyncOban
) -> None:
    await eventually(gunicorn.socket.exists)
    async with visit(gunicorn.socket) as client:
        shown = (await client.get(f"/oban/jobs/{delayed(jobs)}")).text
        [token, *_] = TOKEN.findall(shown)

        async def all_processes_have_changed_jobs() -> bool:
            job_id = delayed(jobs)
            done = await client.post(f"/oban/jobs/{job_id}/cancel", data={"csrf_token": token})
            assert done.status_code == 303, done.text
            assert state(jobs, job_id) == "cancelled"
            # The message of the change is shown once, by whichever process.
            message = f"Job {job_id}"
            first, second = [(await client.get("/oban/queues")).text for _ in range(2)]
            assert (message in first, message in second) == (True, False), first
            return len(gunicorn.answered("POST", 303)) == len(gunicorn.answered("GET", 200)) == 2

        while not await all_processes_have_changed_jobs():
            pass
