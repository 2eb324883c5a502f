"""Runs cells on one event loop, as the kernel of Jupyter does. Reads them as JSON, and prints their output.

IPython takes over `__main__` and the hooks of `sys`, so this is a process of its own.
"""

import asyncio
import io
import json
import sys
from contextlib import redirect_stdout
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


async def main(cells: list[str]) -> list[dict[str, Any]]:
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    results = []
    for cell in cells:
        printed = io.StringIO()
        with redirect_stdout(printed):
            # IPython's function has no types.
            code: str = shell.transform_cell(cell)  # type: ignore[no-untyped-call]
            result = await shell.run_cell_async(cell, transformed_cell=code)
        error = result.error_in_exec or result.error_before_exec
        results.append({"printed": printed.getvalue(), "error": error and f"{type(error).__name__}: {error}"})
    return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
