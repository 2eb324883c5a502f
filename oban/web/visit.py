"""`Visit`: a request to a page of the dashboard, with what the page needs to answer it."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from oban import __version__
from oban.client import Oban
from oban.web import rendering, security
from oban.web.access import Access

if TYPE_CHECKING:
    from oban.web.instance import Instance


@dataclass(slots=True)
class Visit:
    """A request that may see the dashboard.

    Attributes:
        request: The request.
        instance: The instance that the page shows.
        access: What the user may see and do.
        csrf_token: The token for forms.
    """

    request: Request
    instance: "Instance"
    access: Access
    csrf_token: str = field(default_factory=security.new_token)

    @property
    def oban(self) -> Oban:
        return self.instance.oban

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session to read in, on a connection of the dashboard, within its time limit."""
        return self.instance.sessions.read()

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session to write in, on a connection of the dashboard, within its time limit."""
        return self.instance.sessions.write()

    def link(self, path: str, **query: Any) -> str:
        """The address of a page of this instance: `link("jobs", q="state:available")`.

        Values of the query that are None are left out, and lists are repeated.
        """
        kept = {name: value for name, value in query.items() if value is not None}
        return self.base + quote(path.lstrip("/")) + (f"?{urlencode(kept, doseq=True)}" if kept else "")

    @property
    def base(self) -> str:
        """The path of the instance, with a slash at its end."""
        root: str = self.request.scope.get("root_path", "")
        return f"{root.rstrip('/')}/"

    @property
    def section(self) -> str:
        """The part of the address that tells the section of the navigation."""
        path: str = self.request.scope["path"]
        return path.removeprefix(self.base).partition("/")[0]

    def instance_link(self, key: str) -> str:
        """The address of another instance of this dashboard."""
        own = self.instance.paths[self.instance.key]
        return self.base.removesuffix(own) + self.instance.paths[key]

    def static(self, path: str) -> str:
        """The address of a static file. It changes with the version, so that browsers can keep the file."""
        own = self.instance.paths[self.instance.key]
        return f"{self.base.removesuffix(own)}static/{path}?v={__version__}"

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page made of a template, which gets `visit` and the context."""
        return rendering.page(self, template, status, context)

    def redirect(
        self, path: str, message: str | None = None, *, failed: bool = False, **query: Any
    ) -> Response:
        """The answer to a change: go to another page, which shows the message."""
        response = RedirectResponse(self.link(path, **query), status_code=303)
        if message is not None:
            rendering.set_flash(self, response, message, failed=failed)
        return response
