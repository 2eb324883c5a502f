"""The address of a dashboard, and how to prove to it who asks."""

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

import click

#: The variable with a token, which is sent as `Authorization: Bearer`.
TOKEN = "OBAN_URL_TOKEN"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Address:
    """Where a dashboard is.

    Attributes:
        url: The address without user, password and the slash at its end.
        user: The user and the password of the URL.
        token: The token of the environment or of a file.
    """

    url: str
    user: tuple[str, str] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, token_file: str | None = None) -> "Address":
        """The address that settings name. Raises `click.UsageError` without showing any secret."""
        try:
            parts = urlsplit(url)
            # Raises the error about a port that is none.
            _ = parts.port
        except ValueError:
            raise click.UsageError("--url: it is not a URL such as https://example.com/oban.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise click.UsageError("--url: it is not a URL such as https://example.com/oban.")
        if parts.query or parts.fragment:
            raise click.UsageError("--url: it is the address of a dashboard, without ? and #.")
        user = None
        if parts.username is not None:
            user = (unquote(parts.username), unquote(parts.password or ""))
        token = _token(token_file)
        if user and token:
            raise click.UsageError("--url: it has a user, and there is a token as well: use one of them.")
        host = parts.netloc.rpartition("@")[2]
        return cls(urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), user, token)


def _token(path: str | None) -> str | None:
    if path is None:
        found = os.environ.get(TOKEN, "")
        where = TOKEN
    else:
        where = path
        try:
            with open(path, encoding="utf-8") as file:
                found = file.read(100_000)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise click.UsageError(f"--url-token-file: {path} cannot be read: {reason}.") from None
        if not found.strip():
            raise click.UsageError(f"--url-token-file: {path} is empty.")
    token = found.strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise click.UsageError(f"{where} has more than a token: one line of ASCII without spaces.")
    return token or None
