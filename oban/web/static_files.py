"""The static files of the dashboard, which browsers keep until they change."""

import functools
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

#: By suffix, as the tables of the operating system can have other types, which browsers would refuse.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


class Static(StaticFiles):
    """Serves the files of the package."""

    def __init__(self) -> None:
        super().__init__(packages=[("oban.web", "static")])

    def file_response(self, full_path: Any, *args: Any, **options: Any) -> Response:
        response = super().file_response(full_path, *args, **options)
        name = str(full_path)
        response.headers["Content-Type"] = _TYPES.get(name[name.rfind(".") :], "application/octet-stream")
        # The address has the version, so that a file at an address never changes.
        response.headers["Cache-Control"] = "max-age=31536000, immutable"
        return response


@functools.cache
def version() -> str:
    """A version of all files, which changes with any of them."""
    digest = hashlib.sha256()
    for name, content in sorted(_contents(resources.files("oban.web") / "static")):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:12]


def _contents(folder: Traversable) -> list[tuple[str, bytes]]:
    found = []
    for each in folder.iterdir():
        found += _contents(each) if each.is_dir() else [(each.name, each.read_bytes())]
    return found
