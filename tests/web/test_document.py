"""The API's document: it is valid, and says what is so."""

from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator

from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web.api import ROUTES
from aetherflow_hooks.web.openapi import document
from tests.web.conftest import Api
from tests.web.fuzz import fuzz, generated


def test_the_document_is_valid_and_names_every_operation_once() -> None:
    made = document(ROUTES)
    OpenAPIV31SpecValidator(made).validate()
    operations = [it for path in made["paths"].values() for it in path.values()]
    assert len({it["operationId"] for it in operations}) == len(operations) == len(ROUTES)
    assert all(it["summary"] for it in operations)


async def test_the_document_is_told_to_whoever_has_a_token(api: Api) -> None:
    told = await (await api.client(Scope.READ)).get("/openapi.json")
    assert told == document(ROUTES)


async def test_whatever_is_sent_is_answered_as_the_document_says(dsn: str, tmp_path: Path) -> None:
    code, told = await fuzz(dsn, 4, tmp_path)
    assert code == 0, told
    assert generated(told) > 60
