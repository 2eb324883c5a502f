"""`basic_auth`: user names and passwords, for an application that has no users of its own."""

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from oban import display
from oban.errors import ConfigError
from oban.web.access import Access

#: Characters that a password has at least, and bytes of the header that are read at most.
MIN_PASSWORD = 8
MAX_HEADER = 2048
#: Seconds until the answer to a wrong password, and how many of them a client can wait for at a time.
PAUSE = 1.0
ATTEMPTS = 10

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="Oban", charset="UTF-8"'}


def basic_auth(passwords: Mapping[str, str], access: Callable[[str], Access] = Access.full) -> "BasicAuth":
    """Let users in by name and password, which their browser asks for (HTTP Basic authentication).

    Passwords are sent with each request, so serve the dashboard by HTTPS. A wrong one is answered after a
    second, and at most ten at a time for each address.

    Args:
        passwords: The password of each user. Read them from the environment or a file of your own.
        access: Called with the name of a user, it returns what that user may do (default: everything).

    Returns:
        A function for the argument `authorize` of `dashboard`.

    Raises:
        ConfigError: There is no user, a name has a colon, or a password has less than 8 characters.

    Example:
        `dashboard(oban, authorize=basic_auth({"ada": os.environ["ADAS_PASSWORD"]}))`
    """
    if not isinstance(passwords, Mapping) or not passwords:
        raise ConfigError("basic_auth needs a dict with the password of each user")
    for user, password in passwords.items():
        # Not the value: it can be a password that was put in the wrong place.
        if not isinstance(user, str) or not user.strip() or ":" in user or not user.isprintable():
            raise ConfigError("basic_auth: the name of a user must not be blank, nor have a colon")
        if not isinstance(password, str) or len(password) < MIN_PASSWORD:
            raise ConfigError(
                f"basic_auth: the password of {display.shown(user)} must have at least"
                f" {MIN_PASSWORD} characters"
            )
    return BasicAuth(passwords, access)


class BasicAuth:
    """The function that `basic_auth` makes."""

    def __init__(self, passwords: Mapping[str, str], access: Callable[[str], Access]) -> None:
        self._digests = {user: _digest(user, password) for user, password in passwords.items()}
        self._access = access
        #: Wrong attempts that wait for their answer, by address.
        self._waiting: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._digests)} users>"

    async def __call__(self, request: HTTPConnection) -> Access | Response:
        """The access of the user whose name and password a request has, or the answer that asks for them."""
        header = request.headers.get("authorization", "")
        if not header:
            return _refusal("Who are you?", 401)
        address = request.client.host if request.client else ""
        # Before the password is looked at, so that it cannot be guessed faster.
        if self._waiting[address] >= ATTEMPTS:
            return _refusal("Too many wrong passwords. Try again in a moment.", 429)
        user = self._user(header)
        if user is not None:
            return self._access(user)
        self._waiting[address] += 1
        try:
            await asyncio.sleep(PAUSE)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]
        return _refusal("The user or the password is wrong.", 401)

    def _user(self, header: str) -> str | None:
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic" or len(header) > MAX_HEADER:
            return None
        try:
            name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        if not colon:
            return None
        sent, found = _digest(name, password), None
        # All of them, so that the time does not tell which names there are.
        for user, digest in self._digests.items():
            if hmac.compare_digest(sent, digest):
                found = user
        return found


def _digest(user: str, password: str) -> bytes:
    return hashlib.sha256(f"{user}:{password}".encode(errors="surrogatepass")).digest()


def _refusal(text: str, status: int) -> Response:
    headers: dict[str, Any] = _CHALLENGE if status == 401 else {"Retry-After": "1"}
    return PlainTextResponse(f"{text}\n", status, headers)
