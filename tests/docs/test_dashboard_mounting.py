"""The applications of `docs/dashboard_mounting.md` show the dashboard, and change jobs through it."""

import asyncio
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import URL

from oban import Job, Oban
from tests.docs.snippets import fenced
from tests.support.processes import ROOT

SHARED, *BLOCKS = fenced("docs/dashboard_mounting.md", "python")
NAMES = ["starlette", "fastapi", "litestar", "uvicorn", "flask"]
#: Prints the port when the server listens.
SERVE = """
import asyncio, sys, uvicorn
sys.path.insert(0, sys.argv[1])
from app import app

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

asyncio.run(Server(uvicorn.Config(app, port=0, log_level="warning")).serve())
"""
SERVE_WSGI = """
import sys
from wsgiref.simple_server import make_server
sys.path.insert(0, sys.argv[1])
from app import app

server = make_server("127.0.0.1", 0, app)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Page:
    """A browser without scripts."""

    def __init__(self, base: str, user: str | None) -> None:
        self.base = base
        self.cookies = CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        self.user = user

    def open(self, path: str, form: dict[str, str] | None = None) -> str:
        headers = {"Sec-Fetch-Site": "same-origin"}
        cookies = [f"{each.name}={each.value}" for each in self.cookies]
        headers["Cookie"] = "; ".join([*cookies, *([f"user={self.user}"] if self.user else [])])
        data = None if form is None else urlencode(form).encode()
        request = urllib.request.Request(self.base + path, data, headers)
        with self.opener.open(request) as response:
            text: str = response.read().decode()
        return text


class NotFollowing(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@pytest.fixture(params=NAMES)
def site(request: pytest.FixtureRequest, url: URL, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of an application and the path of the dashboard in it."""
    name: str = request.param
    (tmp_path / "app.py").write_text(SHARED + "\n\n" + BLOCKS[NAMES.index(name)])
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE_WSGI if name == "flask" else SERVE, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=ROOT,
        env={"DATABASE_URL": url.render_as_string(hide_password=False), "PATH": "/usr/bin:/bin"},
        text=True,
    )
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        assert port, (tmp_path / "log").read_text()
        yield f"http://localhost:{port}", "" if name == "uvicorn" else "/oban"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        log.close()


@pytest.mark.parametrize("factory", ["sqlite"], indirect=True)
async def test_an_application_shows_the_dashboard_and_cancels_a_job(
    oban: Oban, site: tuple[str, str]
) -> None:
    address, path = site
    job = await oban.enqueue(Job(worker="app.Mail", schedule_in=3600))
    page = Page(address + path, "ada")
    assert "Overview" in await asyncio.to_thread(page.open, "/")
    shown = await asyncio.to_thread(page.open, f"/jobs/{job.id}")
    # Every address begins with the path that the dashboard is mounted at.
    assert f'href="{path}/static/app.css' in shown
    assert "app.Mail" in shown
    token = re.findall(r'name="csrf_token" value="([^"]+)"', shown)[0]
    await asyncio.to_thread(page.open, f"/jobs/{job.id}/cancel", {"csrf_token": token})
    found = await oban.get_job(job.id)
    assert found is not None
    assert found.state == "cancelled"
    # Without a login, the way leads to the application's login page.
    opener = urllib.request.build_opener(NotFollowing())
    with pytest.raises(urllib.error.HTTPError) as redirect:
        await asyncio.to_thread(opener.open, f"{address}{path}/")
    assert (redirect.value.code, redirect.value.headers["Location"]) == (303, "/login")
    redirect.value.close()
