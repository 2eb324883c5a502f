"""The modules of `docs/frameworks/sqlmodel.md`, in a project with the migrations of the page."""

import pytest
from sqlalchemy import URL

from tests.docs.commands import commands
from tests.docs.stage import Page
from tests.docs.written_project import PYTEST, WrittenProject, file_name
from tests.support.databases import Factory

PAGE = Page("frameworks/sqlmodel.md")
FILES = {file_name(found): found for found in PAGE.snippets}
ENV = FILES.pop("migrations/env.py")
TEMPLATE, SHOW = (found for found in PAGE.snippets if not file_name(found))

#: What an application would do with the modules. A test of the application, as only it may import them.
USES = """
import pytest
from alembic import command
from alembic.config import Config
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.exports import Export
from app.jobs import CountShipped, Ship, engine, oban, place, sessions, waiting
from app.models import Order

{show}

@pytest.fixture(autouse=True)
async def disposing():
    yield
    await engine.dispose()

async def test_workers_use_sessions_of_sqlmodel():
    job = await place("ann@example.com")
    assert [found.id for found in await waiting()] == [job.id]
    async with oban:
        assert (await oban.wait(job, timeout=60)).state == "completed", job.errors
        counted = await oban.wait(await oban.enqueue(CountShipped.new()), timeout=60)
    assert counted.recorded == 1
    async with sessions() as session:
        assert (await session.exec(select(Order))).one().shipped

async def test_an_export_has_its_job_and_those_that_name_it():
    async with sessions.begin() as session:
        export = Export(job=Ship.new({{"order_id": 1}}, schedule_in=60))
        session.add(export)
        await session.flush()
        session.add(CountShipped.new({{"export_id": export.id}}))
    async with sessions() as session:
        assert await show(session, export.id) == ["scheduled", "available"]
    assert await oban.delete_job(export.job_id)
    async with sessions() as session:
        export = await session.get_one(Export, export.id)
        # SQLite enforces foreign keys only if the application turns that on.
        assert (export.job_id is None) == (engine.dialect.name == "postgresql")

def test_autogenerate_finds_nothing_more():
    command.check(Config("alembic.ini"))
"""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_modules_work_on_tables_of_the_migration(
    database: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    factory: Factory = request.getfixturevalue(f"{database}_factory")
    url: URL = factory.create(empty=True)
    project = WrittenProject(tmp_path_factory.mktemp("sqlmodel"), url)
    for name, snippet in FILES.items():
        if name:
            project.write(snippet)
    project.write_text("pytest.ini", PYTEST)
    project.write_text("tests/test_uses.py", USES.format(show=SHOW.code))
    try:
        models, configure = ENV.code.split("\ntarget_metadata = [SQLModel.metadata, migration.metadata]\n")
        models = models.replace("import app.models", "import app.exports\nimport app.models")
        project.add_migrations(models, "[SQLModel.metadata, migration.metadata]", configure)
        template = project.folder / "migrations/script.py.mako"
        imports = "import sqlalchemy as sa\n"
        template.write_text(template.read_text().replace(imports, f"{imports}{TEMPLATE.code}"))
        for command in commands("docs/frameworks/sqlmodel.md"):
            project.finish(*command)
        (revision,) = (project.folder / "migrations/versions").glob("*.py")
        assert 'oban.migration.upgrade(op, revision="base:0007")' in revision.read_text()
        # These, and the test of the page.
        assert "4 passed" in project.finish("pytest", "-q")
    finally:
        factory.drop(url)
