"""What commands with `--url` say when they get no answer that they can use, and how they prove who asks."""

import base64
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from oban.web import Access
from tests.support.commands import invoke
from tests.support.dashboards import of_database, served

Endpoint = Callable[[Request], Awaitable[Response]]


def answering(response: Callable[[Request], Response]) -> Starlette:
    """An application that answers every request in the same way."""

    async def endpoint(request: Request) -> Response:
        return response(request)

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])


def problem_of(*arguments: str, **environment: str) -> str:
    """The one line that a command prints when it has failed."""
    result = invoke("jobs", "list", *arguments, **environment)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    [line] = result.stderr.splitlines()
    return line.removeprefix("Error: ")


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (lambda _: HTMLResponse("<h1>Hello</h1>"), "answers with a page instead of JSON"),
        (lambda _: PlainTextResponse("hello"), "answers with text/plain instead of JSON"),
        (lambda _: Response(), "answers with nothing instead of JSON"),
        (lambda _: JSONResponse({"jobs": 7}), "does not understand the answer"),
        (lambda _: Response("{", media_type="application/json"), "does not understand the answer"),
        (
            lambda _: RedirectResponse("/login?next=/x"),
            "/login, probably to log in: commands need",
        ),
        (
            lambda _: RedirectResponse("https://shop.example/api/jobs"),
            "is at another address, https://shop.example",
        ),
        (lambda _: PlainTextResponse("", 401), "asks who you are: set OBAN_URL_TOKEN"),
        (lambda _: PlainTextResponse("Not for you.\nNo.", 403), "refuses the request: Not for you."),
        (lambda _: PlainTextResponse("", 404), "has no API of a dashboard: check the path of --url"),
        (lambda _: PlainTextResponse("", 500), "answers with an error: 500 Internal Server Error"),
        (lambda _: HTMLResponse("<h1>Bad</h1>", 502), "answers with an error: 502 Bad Gateway"),
        (
            lambda _: JSONResponse(
                {"detail": "Try\x1b[31m again."}, 503, media_type="application/problem+json"
            ),
            "Try\\x1b[31m again.",
        ),
    ],
)
def test_each_wrong_answer_has_a_line_of_its_own(response: Callable[[Request], Response], words: str) -> None:
    with served(answering(response)) as url:
        line = problem_of("--url", url)
    assert words in line


def test_a_server_that_cannot_be_reached_has_a_line() -> None:
    assert "cannot connect to http://127.0.0.1:1: " in problem_of("--url", "http://127.0.0.1:1")
    assert "cannot connect" in problem_of("--url", "http://nowhere.invalid")


def test_a_certificate_is_verified() -> None:
    # The server speaks no TLS, which the client finds out as it would a wrong certificate.
    with served(answering(lambda _: JSONResponse([]))) as url:
        assert "cannot connect" in problem_of("--url", url.replace("http://", "https://"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("example.com/oban", "not a URL such as"),
        ("ftp://example.com", "not a URL such as"),
        ("https://", "not a URL such as"),
        ("https://s3cret@example.com:port/", "not a URL such as"),
        ("https://me:s3cret@[::1/", "not a URL such as"),
        ("https://me:s3cret@example.com/?a=b", "without ? and #"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secrets(url: str, words: str) -> None:
    result = invoke("jobs", "list", "--url", url)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert "s3cret" not in result.output


def test_passwords_and_tokens_are_sent_and_never_shown(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def refuse(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        return PlainTextResponse("", 401)

    file = tmp_path / "token"
    file.write_text("t0ken\n")
    with served(answering(refuse)) as url:
        with_user = url.replace("http://", "http://m%40e:s3cret@")
        lines = [
            problem_of("--url", with_user),
            problem_of("--url", url, OBAN_URL_TOKEN="t0ken"),
            problem_of("--url", url, "--url-token-file", str(file)),
        ]
        assert "s3cret" not in invoke("config", OBAN_URL=with_user).stdout
    basic = base64.b64encode(b"m@e:s3cret").decode()
    assert seen == [f"Basic {basic}", "Bearer t0ken", "Bearer t0ken"]
    for line in lines:
        assert "does not accept" in line
        assert "s3cret" not in line
        assert "t0ken" not in line


@pytest.mark.parametrize("content", ["", "two words", "a\nb", "ü"])
def test_a_wrong_token_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    result = invoke("jobs", "list", "--url", "http://127.0.0.1:1", "--url-token-file", str(file))
    assert result.exit_code == 2
    result = invoke("jobs", "list", "--url", "http://127.0.0.1:1", "--url-token-file", "missing")
    assert "missing cannot be read" in result.stderr


@pytest.fixture
def guarded(sqlite_url: URL) -> Iterator[str]:
    """The address of a dashboard that lets a token look, and change nothing."""

    def authorize(request: object) -> Access | None:
        token = request.headers.get("authorization")  # type: ignore[attr-defined]
        return Access.read_only("ada") if token == "Bearer t0ken" else None

    with served(of_database(sqlite_url, authorize)) as url:
        yield f"{url}/oban"


def test_permissions_of_the_dashboard_apply(guarded: str) -> None:
    assert problem_of("--url", guarded) == "You may not see this dashboard."
    result = invoke("jobs", "list", "--url", guarded, OBAN_URL_TOKEN="t0ken")
    assert (result.exit_code, result.stdout) == (0, "There are no jobs.\n")
    result = invoke("queues", "pause", "mail", "--url", guarded, OBAN_URL_TOKEN="t0ken")
    assert result.exit_code == 1
    assert result.stderr == "Error: ada does not have the permission manage_queues.\n"
