"""Problem documents (RFC 9457): how the API refuses a request."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus

import orjson
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from oban.documents.choice import InvalidFilter
from oban.errors import (
    DatabaseUnavailable,
    InvalidJob,
    JobNotFound,
    ObanError,
    PeriodicInCode,
    PeriodicNotFound,
    SchemaMismatch,
    SchemaMissing,
    UniqueConflict,
)
from oban.web.errors import WebError

logger = logging.getLogger("oban.web")

MEDIA_TYPE = "application/problem+json"
#: How many fields are named, and how many characters the text about each can have.
_ERRORS, _LONGEST = 50, 1000
_BUSY = "The database has not answered in time. Try again, or narrow the filter."


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """What is wrong with a field of a request."""

    #: The path of the field, such as `jobs[0].queue`.
    field: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was refused."""

    #: A URI for programs, such as `urn:oban:problem:not-found`.
    type: str
    #: The meaning of the status.
    title: str
    #: The status of the response.
    status: int
    #: A sentence for people.
    detail: str
    #: The fields that are wrong.
    errors: list[FieldError]


class Refusal(Exception):
    """A request that the API refuses, with the problem document that says why."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = list(errors)
        self.headers = dict(headers or {})

    @classmethod
    def of_field(cls, field: str, detail: str) -> "Refusal":
        """A field has a wrong value."""
        return cls(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {detail}", [FieldError(field=field, detail=detail)]
        )

    def response(self) -> Response:
        """The answer."""
        kind = self.status.phrase.lower().replace(" ", "-")
        problem = Problem(
            type=f"urn:oban:problem:{kind}",
            title=self.status.phrase,
            status=self.status.value,
            detail=_cut(str(self)),
            errors=self.errors[:_ERRORS],
        )
        body = orjson.dumps(asdict(problem))
        return Response(body, self.status, self.headers, media_type=MEDIA_TYPE)


def of_error(error: Exception) -> Refusal:
    """The refusal that an error in a handler means. An error that nobody expects is logged."""
    match error:
        case Refusal():
            return error
        case InvalidFilter():
            return Refusal.of_field(error.filter, error.problem)
        case InvalidJob():
            return Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                str(error),
                [FieldError(field=error.field, detail=_cut(error.problem))],
            )
        case JobNotFound() | PeriodicNotFound():
            return Refusal(HTTPStatus.NOT_FOUND, str(error))
        case UniqueConflict() | PeriodicInCode():
            return Refusal(HTTPStatus.CONFLICT, str(error))
        case WebError():
            return _of_page(error)
        case TimeoutError() | DatabaseUnavailable() | SchemaMissing() | SchemaMismatch():
            return _unavailable()
        case ObanError():
            return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        case HTTPException():
            return Refusal(HTTPStatus(error.status_code), str(error.detail))
        case SQLAlchemyError():
            # Such as a statement that was cancelled, or a connection that was lost.
            logger.warning("the API could not use the database: %s", type(error).__name__)
            return _unavailable()
    logger.error("the API has failed", exc_info=error)
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "The dashboard has failed. Its log says why.")


def of_validation(error: ValidationError) -> Refusal:
    """The refusal of a body or a query that does not fit its type."""
    found = [FieldError(field=_path(each["loc"]), detail=each["msg"]) for each in error.errors()]
    first = found[0]
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    detail = f"{first.field}: {first.detail}{more}"
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail, found)


def _unavailable() -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, _BUSY, headers={"Retry-After": "1"})


def _of_page(error: WebError) -> Refusal:
    headers: Mapping[str, str] = getattr(error, "headers", {})
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {**headers, "Retry-After": "1"}
    return Refusal(HTTPStatus(error.status), str(error), headers=headers)


def _path(steps: Sequence[int | str]) -> str:
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step[:100]}" if path else step[:100]
    return path or "(body)"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
