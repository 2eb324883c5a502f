"""A mail provider that is a function."""

import httpx


class Provider:
    """A mail provider that answers with `status`. `accepted` has the mail that it has accepted."""

    def __init__(self) -> None:
        self.status = 202
        self.accepted: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.status == 202:
            self.accepted.append(request.headers["Idempotency-Key"])
        return httpx.Response(self.status, text="no such mailbox")
