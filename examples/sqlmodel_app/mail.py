"""The client of the mail provider, which takes mail over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import httpx


class Refused(Exception):
    """The provider will never send this mail, however often it is asked."""


class Mail:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Self]:
        """Open a client with a pool of connections, and close it at the end."""
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            yield cls(http)

    async def send(self, to: str, subject: str, *, key: str) -> None:
        """Send a mail. The provider sends only one mail with the same key, however often it is asked.

        Raises:
            Refused: The provider does not accept the mail.
            httpx.HTTPError: The provider cannot be reached, or has a problem of its own.
        """
        answer = await self._http.post(
            "/messages", json={"to": to, "subject": subject}, headers={"Idempotency-Key": key}
        )
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise Refused(f"{to}: {answer.text}")
        answer.raise_for_status()
