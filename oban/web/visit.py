"""`Visit`: a request to a page of the dashboard, with what the page needs to answer it."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from oban.client import Oban
from oban.web import audit, rendering, security, static_files
from oban.web.access import Access, Permission
from oban.web.errors import Refused

if TYPE_CHECKING:
    from oban.web.instance import Instance


def mount_path(scope: Scope) -> str:
    """The path that an application is mounted at, quoted, without a slash at its end."""
    root: str = scope.get("root_path", "")
    # Parts of it can come from the address of the request, where a mount has parameters: "//" would lead to
    # another host.
    path = quote(root.strip("/"))
    return f"/{path}" if path else ""


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
    #: What the request is for in the audit trail: the permission of an action.
    action: str = "view"
    is_audited: bool = False

    def use_cookie(self) -> None:
        """Take the token that the browser has, so that forms of all its pages have the same one."""
        token = self.request.cookies.get(security.CSRF_COOKIE)
        if security.is_token(token):
            self.csrf_token = token

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

    def here(self, **query: Any) -> str:
        """The address of this page with other values in its query: None removes one."""
        kept = [(name, value) for name, value in self.request.query_params.multi_items() if name not in query]
        changed = {name: value for name, value in query.items() if value is not None}
        text = urlencode(kept + list(changed.items()), doseq=True)
        return quote(self.request.scope["path"]) + (f"?{text}" if text else "")

    @property
    def base(self) -> str:
        """The path of the instance, with a slash at its end."""
        return f"{mount_path(self.request.scope)}/"

    @property
    def path(self) -> str:
        """The path of the request below that of the instance, such as "/jobs/7"."""
        path: str = self.request.scope["path"]
        return path.removeprefix(self.request.scope.get("root_path", "").rstrip("/"))

    @property
    def section(self) -> str:
        """The part of the address that tells the section of the navigation."""
        return self.path.lstrip("/").partition("/")[0]

    def instance_link(self, key: str) -> str:
        """The address of the same page of another instance of this dashboard.

        A job or a queue of one instance need not exist in another one: the link is to the list then.
        """
        own = self.instance.paths[self.instance.key]
        query = {"q": self.request.query_params.get("q")} if self.path == f"/{self.section}" else {}
        section = self.section if any(self.section == path for path, _ in rendering.SECTIONS) else ""
        page = self.link(section, **query).removeprefix(self.base)
        return self.base.removesuffix(own) + self.instance.paths[key] + page

    def static(self, path: str) -> str:
        """The address of a static file. It changes with the version, so that browsers can keep the file."""
        own = self.instance.paths[self.instance.key]
        return f"{self.base.removesuffix(own)}static/{path}?v={static_files.version()}"

    def require(self, permission: Permission) -> None:
        """Raise `Refused` unless the user has a permission."""
        if not self.access.allows(permission):
            raise Refused(f"{self.access.user} does not have the permission {permission}.")

    def audit_refusal(self, error: Exception) -> None:
        """Tell the audit trail that the request was refused."""
        telemetry, user = self.oban.telemetry, self.access.user
        audit.refusal(telemetry, self.request, self.path, user, self.action, str(error))

    def audit(
        self,
        action: str | None = None,
        *,
        count: int | None = None,
        ids: Collection[int] = (),
        target: str | None = None,
        filter: str | None = None,
        failed: bool = False,
    ) -> None:
        """Tell the audit trail what the request has changed, after the change is committed.

        An action that never calls this is recorded as well, without these details.

        Args:
            action: What was done, such as "cancel_jobs" (default: the permission that it needs).
            count: How many jobs, queues or entries were changed.
            ids: The ids of these jobs. The first 100 are recorded.
            target: The name of what was changed, if that is no job: a queue, a node, an entry.
            filter: The filter that chose the jobs, as it was written. Values of args and meta are removed.
            failed: Whether the change was not made, or only in part.
        """
        self.is_audited = True
        outcome = "failed" if failed else "done"
        name = action or self.action
        audit.action(self, name, outcome=outcome, target=target, ids=ids, filter=filter, count=count)

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
