"""Hooks for an application's `env.py`, so that `--autogenerate` leaves Oban's tables to Oban's revisions.

Packages that compare more than tables, such as alembic-postgresql-enum and alembic_utils, would drop Oban's
enum, function and trigger, because no metadata describes them. Importing this module prevents that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import AlterColumnOp, MigrationScript, ModifyTableOps, OpContainer
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Identity

from oban import compat
from oban.ddl import ENUM, TRIGGER, VERSION_TABLE
from oban.migration import revisions
from oban.models import metadata

TABLES = {table.name for table in metadata.tables.values()}
#: Objects of the tables that the metadata does not include. The signature of a function has parentheses.
_ATTACHED = {ENUM, TRIGGER, f"{TRIGGER}()"}


def include_object(object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Keep `--autogenerate` from dropping Oban's tables: pass it to `context.configure`.

    Combine it with your own: `lambda *args: migration.include_object(*args) and my_include_object(*args)`.

    Returns:
        False for Oban's tables, its version table included, that are not in the `target_metadata`, and for
        the function, the trigger and the privileges of these tables that alembic_utils finds.
    """
    if not reflected or compare_to is not None:
        return True
    if type_ == "table":
        return name not in TABLES and name != VERSION_TABLE
    if type_ == "grant_table":
        return getattr(object, "table", None) not in TABLES
    # alembic_utils passes objects of its own.
    return type_ not in {"function", "trigger"} or _ATTACHED.isdisjoint(_names(object))


def process_revision_directives(context: MigrationContext, revision: Any, directives: list[Any]) -> None:
    """Let `--autogenerate` write a call of `upgrade` for Oban's tables: pass it to `context.configure`.

    It is for a `target_metadata` that includes `migration.metadata`. If the database does not have the
    newest revision of Oban, all that was found about Oban's tables becomes one call, before anything else
    (in `downgrade`, after it). Metadata cannot describe everything that this call creates, such as the
    trigger. If you have a hook of your own, call it after this one.
    """
    command = context.opts.get("revision_context")
    if command and not command.command_args.get("autogenerate"):
        # With `revision_environment`, Alembic calls the hook for an empty revision as well.
        return
    for directive in directives:
        for operations in _last_operations(directive):
            _remove_attached(operations)
    targets = context.opts.get("target_metadata")
    for target in targets if isinstance(targets, (list, tuple)) else [targets]:
        for table in target.tables.values() if target is not None else ():
            if table.name == "oban_jobs":
                for directive in directives:
                    _replace(context, table.schema, directive)


@comparators.dispatch_for("schema")
def _compare_nothing_attached(context: AutogenContext, operations: OpContainer, schemas: Any) -> None:
    """Remove what other comparators have found about Oban's enum, function and trigger."""

    def remove(_: AutogenContext, operations: OpContainer, __: Any) -> None:
        _remove_attached(operations)

    if not compat.compare_last(context, remove):
        _remove_attached(operations)


def _remove_attached(operations: OpContainer) -> None:
    operations.ops[:] = [
        operation for operation in operations.ops if _ATTACHED.isdisjoint(_operation_names(operation))
    ]


def _operation_names(operation: Any) -> Iterator[str]:
    """The names in an operation of another package: its own attributes, or those of the object it changes."""
    values: Iterable[Any] = getattr(operation, "__dict__", {}).values()
    for value in values:
        yield from [value] if isinstance(value, str) else _names(value)


def _names(value: Any) -> Iterator[str]:
    for key in ("name", "signature", "trigger_name"):
        if isinstance(name := getattr(value, key, None), str):
            yield name


def ignore_identity(context: MigrationContext, _: Any, directives: list[MigrationScript]) -> None:
    """Remove changes of the primary key's IDENTITY where the database has none.

    There, the key counts up on its own, and Alembic would try to add the IDENTITY in every revision.
    """
    if context.dialect.supports_identity_columns:
        return
    for directive in directives:
        for operations in _last_operations(directive):
            for operation in operations.ops:
                if isinstance(operation, ModifyTableOps) and operation.table_name == "oban_jobs":
                    operation.ops[:] = [part for part in operation.ops if not _changes_identity(part)]
            operations.ops[:] = [
                operation
                for operation in operations.ops
                if not (isinstance(operation, ModifyTableOps) and operation.is_empty())
            ]


def _changes_identity(operation: Any) -> bool:
    # In a downgrade, the IDENTITY is the existing default.
    return isinstance(operation, AlterColumnOp) and any(
        isinstance(default, Identity)
        for default in (operation.modify_server_default, operation.existing_server_default)
    )


def _last_operations(directive: MigrationScript) -> tuple[OpContainer, OpContainer]:
    # With several databases, each adds its own at the end.
    return directive.upgrade_ops_list[-1], directive.downgrade_ops_list[-1]


def _replace(context: MigrationContext, prefix: str | None, directive: MigrationScript) -> None:
    """Replace all operations on Oban's tables by a call, unless they are at the newest revision."""
    ignore_identity(context, None, [directive])
    script = revisions.script()
    options = {"version_table": VERSION_TABLE, "version_table_schema": prefix}
    current = MigrationContext.configure(context.connection, opts=options).get_current_revision() or "base"
    head = script.get_current_head() or "base"
    if current not in {"base", *(known.revision for known in script.walk_revisions())} - {head}:
        return
    upgrade, downgrade = _last_operations(directive)
    for operations in (upgrade, downgrade):
        operations.ops[:] = [operation for operation in operations.ops if not _is_of_oban(operation, prefix)]
    upgrade.ops.insert(0, _UpgradeOban("upgrade", prefix, current, head))
    downgrade.ops.append(_UpgradeOban("downgrade", prefix, head, current))


def _is_of_oban(operation: Any, prefix: str | None) -> bool:
    return getattr(operation, "table_name", None) in TABLES and getattr(operation, "schema", None) == prefix


@dataclass
class _UpgradeOban(MigrateOperation):
    """A call of `migration.upgrade` or `migration.downgrade` in an autogenerated revision."""

    call: str
    prefix: str | None
    start: str
    end: str

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return (f"{self.call}_oban", self.prefix, self.start, self.end)


@renderers.dispatch_for(_UpgradeOban)
def _render(context: AutogenContext, operation: _UpgradeOban) -> str:
    context.imports.add("import oban.migration")
    prefix = f", prefix={operation.prefix!r}" if operation.prefix else ""
    return f'oban.migration.{operation.call}(op{prefix}, revision="{operation.start}:{operation.end}")'
