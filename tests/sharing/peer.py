"""The other side: a process that runs nodes of oban-py, as a test tells it."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import URL

NODE = Path(__file__).parent / "oban_py" / "node.py"
#: Of theirs: nothing is found by looking again, and a node that stops waits for nobody.
NO_POLLING: dict[str, Any] = {"stager": {"interval": 60}, "shutdown_grace_period": 0.1}


def dsn(url: URL) -> str:
    """A URL as libpq takes it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


class Peer:
    """One process; one node at a time in it, called by the names of `oban_py/node.py`."""

    def __init__(self, python: Path) -> None:
        # Without the environment's variables: PYTHONPATH would lead it to our package.
        self._process = subprocess.Popen(
            [python, "-E", NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def start(self, url: URL, **options: Any) -> None:
        """Start a node of theirs on a database; `options` are those of their `Oban`."""
        await self.do("start", dsn(url), **{"node": "theirs", **NO_POLLING, **options})

    async def do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the process; what it returns, as JSON. An error there is an error here."""
        answer = await asyncio.to_thread(self._exchange, json.dumps([method, args, kwargs]))
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of their `Oban`."""
        return await self.do("call", method, *args, **kwargs)

    def _exchange(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline() or '{"error": "the process has ended"}')

    def kill(self) -> None:
        """End the process at once, whatever it runs."""
        self._process.kill()
        self._process.communicate()
