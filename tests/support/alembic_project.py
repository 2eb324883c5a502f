"""An application with its own Alembic environment, made by `alembic init`."""

import io
from contextlib import redirect_stdout
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from tests.support.schema import render, sync_engine

#: The application's models, as its env.py defines them.
MODELS = """
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None] = mapped_column(sa.Text, index=True)
"""
OURS = "from oban import migration\n"
THEIRS_ALONE = f"{OURS}{MODELS}\ntarget_metadata = Base.metadata"
BOTH = f"{OURS}{MODELS}\ntarget_metadata = [Base.metadata, migration.metadata]"
HOOKS = (
    "include_object=migration.include_object,"
    " process_revision_directives=migration.process_revision_directives"
)
STRICT = "compare_type=True, compare_server_default=True"

_REVISION = """
import sqlalchemy as sa
from alembic import op
from oban import migration

revision, down_revision, branch_labels, depends_on = {name!r}, {after!r}, None, None

def upgrade():
{up}

def downgrade():
{down}
"""


class Project:
    """A project folder with the env.py of an Alembic template.

    `target` replaces `target_metadata = None`, and `options` are added to `context.configure`."""

    def __init__(self, folder: Path, url: URL, template: str, target: str, options: str = HOOKS) -> None:
        self.folder = folder / "alembic"
        self.url = url if template == "async" else sync_engine(url).url
        with redirect_stdout(io.StringIO()):
            command.init(Config(str(folder / "alembic.ini")), str(self.folder), template=template)
        env = (self.folder / "env.py").read_text()
        assert "\ntarget_metadata = None\n" in env
        env = env.replace("target_metadata = None", target)
        self.configure(env, options)

    def configure(self, env: str, options: str) -> None:
        argument = "target_metadata=target_metadata"
        (self.folder / "env.py").write_text(
            env.replace(argument, f"{argument}, {options}" if options else argument)
        )

    def config(self) -> Config:
        # Without the ini file, whose logging setup would affect other tests.
        printed = io.StringIO()
        config = Config(stdout=printed, output_buffer=printed)
        config.set_main_option("script_location", str(self.folder))
        config.set_main_option("path_separator", "os")
        config.set_main_option("sqlalchemy.url", render(self.url).replace("%", "%%"))
        return config

    def write(self, name: str, after: str | None, up: list[str], down: list[str]) -> None:
        """Write a revision by hand."""
        bodies = {
            key: "\n".join(f"    {line}" for line in lines) for key, lines in (("up", up), ("down", down))
        }
        revision = _REVISION.format(name=name, after=after, **bodies)
        (self.folder / "versions" / f"{name}.py").write_text(revision)

    def autogenerate(self) -> str:
        """Let Alembic write a revision, and return its content."""
        with redirect_stdout(io.StringIO()):
            made = command.revision(self.config(), "made", autogenerate=True)
        assert made is not None
        assert not isinstance(made, list)
        return Path(made.path).read_text()

    def upgrade(self, revision: str = "head", sql: bool = False) -> str:
        return self._printed("upgrade", revision, sql)

    def downgrade(self, revision: str = "base", sql: bool = False) -> str:
        return self._printed("downgrade", revision, sql)

    def check(self) -> None:
        """Raise Alembic's error if autogenerate would find a difference."""
        command.check(self.config())

    def _printed(self, name: str, revision: str, sql: bool) -> str:
        config = self.config()
        getattr(command, name)(config, revision, sql=sql)
        assert config.output_buffer is not None
        assert isinstance(config.output_buffer, io.StringIO)
        return config.output_buffer.getvalue()
