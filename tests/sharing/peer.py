"""A process that runs nodes of oban-py under the control of a test."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import URL

NODE = Path(__file__).parent / "oban_py" / "node.py"
#: Options of oban-py: nothing is found by polling, and a node that stops does not wait for jobs.
NO_POLLING: dict[str, Any] = {"stager": {"interval": 60}, "shutdown_grace_period": 0.1}


def dsn(url: URL) -> str:
    """A URL in the format of libpq."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


class Peer:
    """A process that runs one node at a time and has the methods of `oban_py/node.py`."""

    def __init__(self, python: Path) -> None:
        # -E ignores PYTHONPATH, with which it would import our package.
        self._process = subprocess.Popen(
            [python, "-E", NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def start(self, url: URL, **options: Any) -> None:
        """Start a node of oban-py on a database. `options` are those of its `Oban`."""
        await self.do("start", dsn(url), **{"node": "theirs", **NO_POLLING, **options})

    async def do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the process, and return its result as JSON. Raises its errors here."""
        answer = await asyncio.to_thread(self._exchange, json.dumps([method, args, kwargs]))
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the `Oban` of oban-py."""
        return await self.do("call", method, *args, **kwargs)

    def _exchange(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline() or '{"error": "the process has ended"}')

    def kill(self) -> None:
        """Kill the process, whatever it runs."""
        self._process.kill()
        self._process.communicate()
