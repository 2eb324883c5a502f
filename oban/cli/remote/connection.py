"""`Connection`: requests to the JSON API of a dashboard, and a line about each way in which they fail."""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import urljoin, urlsplit

import click
from pydantic import TypeAdapter, ValidationError

import oban
from oban.cli.remote.address import TOKEN, Address
from oban.error_texts import first_line, log_safe

if TYPE_CHECKING:
    import httpx2

#: Seconds for a connection, and for an answer. A dashboard answers within 10 seconds, if only with an error.
CONNECT, ANSWER = 10.0, 30.0
_PROBLEM = "application/problem+json"


class NotThere(click.ClickException):
    """The dashboard says that there is no such job or entry."""


class Connection:
    """A connection to the API of a dashboard.

    Raises:
        click.ClickException: From each call, if there is no answer that it can use.
    """

    def __init__(self, address: Address) -> None:
        try:
            import httpx2
        except ModuleNotFoundError:
            raise click.ClickException(
                "--url needs the package httpx2: pip install 'oban-sqlalchemy[remote]'"
            ) from None
        self._address = address
        headers = {"Accept": "application/json", "User-Agent": f"oban/{oban.__version__}"}
        if address.token:
            headers["Authorization"] = f"Bearer {address.token}"
        self._http = httpx2.AsyncClient(
            auth=address.user, headers=headers, timeout=httpx2.Timeout(ANSWER, connect=CONNECT)
        )
        self._refused = (httpx2.ConnectError, httpx2.ConnectTimeout)
        self._failed = httpx2.HTTPError
        self._late = httpx2.TimeoutException

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, type_: Any, query: Mapping[str, Any] | None = None) -> Any:
        """What GET answers, as an object of a type."""
        return self._value(await self._send("GET", path, params=query or None), type_)

    async def post(self, path: str, type_: Any, body: Mapping[str, Any]) -> Any:
        """What POST answers, as an object of a type."""
        return self._value(await self._send("POST", path, json=body), type_)

    async def _send(self, method: str, path: str, **options: Any) -> "httpx2.Response":
        url = f"{self._address.url}/api/{path}"
        try:
            response = await self._http.request(method, url, **options)
        except self._refused as error:
            raise click.ClickException(f"cannot connect to {self._shown}: {_reason(error)}") from error
        except self._late as error:
            raise click.ClickException(
                f"{self._shown} has not answered within {ANSWER:g} seconds; a change can still happen"
            ) from error
        except self._failed as error:
            raise click.ClickException(f"{self._shown} has not answered: {_reason(error)}") from error
        if not response.is_success:
            self._fail(response)
        return response

    def _value(self, response: "httpx2.Response", type_: Any) -> Any:
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind != "application/json":
            what = "a page" if kind == "text/html" else log_safe(kind) or "nothing"
            raise click.ClickException(
                f"{self._shown} answers with {what} instead of JSON: is it the address of a dashboard?"
            )
        try:
            return TypeAdapter(type_).validate_json(response.content)
        except ValidationError as error:
            raise click.ClickException(
                f"this version of oban, {oban.__version__}, does not understand the answer of {self._shown}:"
                f" {first_line(_of_validation(error))}"
            ) from None

    def _fail(self, response: "httpx2.Response") -> NoReturn:
        if response.has_redirect_location:
            self._fail_redirected(response)
        if response.headers.get("content-type") == _PROBLEM and (detail := _detail(response.content)):
            kind = NotThere if response.status_code == 404 else click.ClickException
            raise kind(detail)
        match response.status_code:
            case 401:
                text = f"asks who you are: set {TOKEN}, or put USER:PASSWORD@ before the host of the URL"
                if self._address.token or self._address.user:
                    text = "does not accept this token, or this user and password"
            case 403:
                text = f"refuses the request: {_text(response)}" if _text(response) else "refuses the request"
            case 404 | 405:
                text = "has no API of a dashboard: check the path of --url, also for the name of an instance"
            case status:
                text = f"answers with an error: {status} {log_safe(response.reason_phrase)}"
        raise click.ClickException(f"{self._shown} {text}")

    def _fail_redirected(self, response: "httpx2.Response") -> NoReturn:
        asked = str(response.request.url)
        location = urljoin(asked, response.headers["location"])
        target, own = urlsplit(location), urlsplit(asked)
        where = log_safe(f"{target.scheme}://{target.netloc.rpartition('@')[2]}{target.path}", 200)
        if target.path == own.path:
            text = f"is at another address, {where.removesuffix(urlsplit(asked).path)}"
        else:
            text = f"redirects to {where}, probably to log in: commands need {TOKEN}, or a user in the URL"
        raise click.ClickException(f"{self._shown} {text}")

    @property
    def _shown(self) -> str:
        return log_safe(self._address.url, 200)


def _reason(error: Exception) -> str:
    return log_safe(first_line(str(error)) or type(error).__name__, 300)


def _text(response: "httpx2.Response") -> str:
    """The text of a refusal, if it is for people."""
    is_text = response.headers.get("content-type", "").startswith("text/plain")
    return log_safe(first_line(response.text.strip()), 300) if is_text else ""


def _detail(content: bytes) -> str | None:
    try:
        detail = json.loads(content)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return log_safe(detail, 1000) if isinstance(detail, str) else None


def _of_validation(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return log_safe(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
