"""The description of the JSON API."""

import json
from collections.abc import AsyncIterator

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from oban import Oban
from oban.web import dashboard
from oban.web.api import openapi
from oban.web.api.routes import API_ROUTES
from tests.support.api import ApiVisitor
from tests.support.openapi import PATH, document


@pytest.fixture
async def api(oban: Oban) -> AsyncIterator[ApiVisitor]:
    app = dashboard(oban)
    async with ApiVisitor(app) as made:
        yield made
    await app.aclose()


def test_the_description_is_current() -> None:
    assert json.loads(PATH.read_text()) == document(), "run python -m tests.support.openapi"


def test_the_description_is_valid() -> None:
    OpenAPIV31SpecValidator(openapi.stored()).validate()


def test_the_examples_are_valid() -> None:
    found = openapi.stored()
    examples = 0
    for operations in found["paths"].values():
        for operation in operations.values():
            media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in media:
                schema = {**media["schema"], "components": found["components"]}
                Draft202012Validator(schema).validate(media["example"])
                examples += 1
    assert examples == sum(route.example is not None for route in API_ROUTES) > 10


@pytest.mark.either_database
async def test_the_description_is_served_with_the_address_of_the_dashboard(api: ApiVisitor) -> None:
    found = await api.ask("openapi.json")
    assert found["servers"] == [{"url": "/"}]
    assert found["paths"] == openapi.stored()["paths"]
