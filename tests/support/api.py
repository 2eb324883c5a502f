"""`ApiVisitor`: sends requests to the JSON API, and compares each answer with its description."""

from collections.abc import Mapping
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

from oban.web.api import openapi
from oban.web.api.problems import MEDIA_TYPE
from tests.support.web import Visitor

_DOCUMENT = openapi.stored()
_CHECKER = Draft202012Validator.FORMAT_CHECKER


class ApiVisitor(Visitor):
    """A program that uses the API, without the headers of a browser."""

    async def ask(self, path: str, status: int = 200, **query: Any) -> Any:
        """The document that GET answers."""
        response = await self.http.get(f"{self.base}/api/{path}", params=query or None)
        return checked(response, "get", path, status)

    async def tell(
        self, path: str, body: Any, status: int = 200, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The document that POST answers."""
        response = await self.http.post(f"{self.base}/api/{path}", json=body, headers=headers)
        return checked(response, "post", path, status)


def checked(response: httpx2.Response, method: str, path: str, status: int) -> Any:
    """The document of an answer, which is as it is described."""
    assert response.status_code == status, response.text
    assert response.headers["cache-control"] == "no-store"
    validate(method, path.partition("?")[0], response)
    return response.json()


def validate(method: str, path: str, response: httpx2.Response) -> None:
    """Raise an error unless an answer of a described operation is as it is described."""
    operation = _operation(method, path)
    kind = response.headers["content-type"]
    assert kind == ("application/json" if response.is_success else MEDIA_TYPE), kind
    if operation is None:
        assert response.status_code in (404, 405)
        schema: Any = {"$ref": "#/components/schemas/Problem"}
    else:
        described = operation["responses"][str(response.status_code)]
        schema = described["content"][kind]["schema"]
    whole = {**schema, "components": _DOCUMENT["components"]}
    Draft202012Validator(whole, format_checker=_CHECKER).validate(response.json())


def _operation(method: str, path: str) -> Any:
    parts = path.split("/")
    for known, operations in _DOCUMENT["paths"].items():
        steps = known.removeprefix("/api/").split("/")
        if len(steps) == len(parts) and all(
            step == part or (step.startswith("{") and part.isdecimal())
            for step, part in zip(steps, parts, strict=True)
        ):
            return operations.get(method)
    return None
