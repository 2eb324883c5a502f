"""The web applications of `examples/`, each on a database of its own, with an HTTP client."""

import re
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import URL, Engine, create_engine, text

from tests.examples.processes import Process, finish, until
from tests.examples.processes import text as shown


class Application:
    """`processes` has the one that serves first and the one that runs jobs last; they can be the same."""

    def __init__(self, url: URL, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.processes: list[Process] = []
        # A stopping server would wait a while for idle connections.
        self.client = httpx.Client(timeout=20, limits=httpx.Limits(max_keepalive_connections=0))
        lite = url.get_backend_name() == "sqlite"
        self.engine: Engine = create_engine(url.set(drivername="sqlite" if lite else "postgresql+psycopg"))

    def start(self) -> None:
        self.processes = self._start()
        # The server chooses a free port.
        address = self.processes[0].says(r"(?:running on|Listening at:) (http://[\d.:]+)").group(1)
        self.client.base_url = httpx.URL(address)
        self.processes[-1].says(r"runs mailers:5")

    def _start(self) -> list[Process]:
        raise NotImplementedError

    def stop(self) -> list[int]:
        """Ask all processes to stop; returns their exit codes."""
        for process in self.processes:
            process.terminate()
        codes = [process.ended() for process in self.processes]
        for process in self.processes:
            assert not re.search("Traceback|Warning|ERROR|CRITICAL", process.printed()), process.printed()
        return codes

    def close(self) -> None:
        """Kill the processes and close all connections."""
        for process in self.processes:
            process.kill()
        self.client.close()
        self.engine.dispose()

    # -- the database --------------------------------------------------------------------------

    def rows(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), parameters)]

    # -- over HTTP -----------------------------------------------------------------------------

    def call(self, method: str, path: str, json: Any = None, *, status: int = 200) -> Any:
        """Send a request that must have this status; returns the JSON of the response."""
        answer = self.client.request(method, path, json=json)
        assert answer.status_code == status, answer.text
        return answer.json()

    def stock(self, product: str, stock: int) -> None:
        assert self.call("PUT", f"/products/{product}", {"stock": stock}) == {"stock": stock}

    def order(self, product: str, quantity: int = 1, *, status: int = 201) -> Any:
        new = {"product": product, "quantity": quantity, "email": "ann@example.com"}
        return self.call("POST", "/orders", new, status=status)

    def jobs(self, order: Any) -> Any:
        return self.call("GET", f"/orders/{order['id']}/jobs")

    def job_in(self, order: Any, worker: str, *states: str) -> Any:
        """Wait until the order's job of this worker is in one of the states; returns the job."""

        def found() -> Any:
            [job] = [job for job in self.jobs(order) if job["worker"].endswith(f".{worker}")]
            return job if job["state"] in states else None

        return until(found)


class FastAPI(Application):
    """One process that serves and runs jobs."""

    def _start(self) -> list[Process]:
        log = self.folder / "server.log"
        return [Process(log, "-m", "fastapi_app", "--port", "0", DATABASE_URL=shown(self.url))]


class Flask(Application):
    """One process that serves and one that runs jobs, after a command that creates the tables."""

    def _start(self) -> list[Process]:
        database = {"DATABASE_URL": shown(self.url), "HOME": str(self.folder)}
        if not self.processes:
            finish("-m", "flask", "--app", "flask_app.app", "install", **database)
        serving = ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4", "flask_app.app:create_app()"]
        running = ["-m", "oban", "start", "--import", "flask_app.workers", "--queues", "mailers:5"]
        return [
            Process(self.folder / "server.log", *serving, **database),
            Process(self.folder / "runner.log", *running, OBAN_DATABASE_URL=shown(self.url)),
        ]
