"""The SQL of an upsert: rows from arrays or from a staging table, one for each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis_worker.postgres.table import Table, quoted


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of a sink."""

    upsert: str
    """The parameters are arrays, one for each column."""
    staging: str
    """The name of a temporary table: the columns, and the position of each row (rows may be stored in another order).

    It is empty at the start of each transaction.
    """
    create_staging: str
    merge: str
    """The upsert from the staging table."""


def statements(
    table: Table, key: Sequence[str], update: Sequence[str], version: str | None, staging: str
) -> Statements:
    """Return the statements. Without `update` existing rows stay, and the first of equal keys is taken; else the last.

    Rows are written in the order of their keys, so that concurrent writers do not wait for each other in a circle.
    """
    names = [quoted(column.name) for column in table.columns]
    fields = [f"f{number}" for number in range(len(names))]
    values = [
        field
        if column.direct
        else f"{field}::{column.cast_to}" + (f" collate {column.collation}" * bool(column.collation))
        for field, column in zip(fields, table.columns, strict=True)
    ]
    places = {column.name: number for number, column in enumerate(table.columns, 1)}
    keys = ", ".join(str(places[column]) for column in key)
    order = keys if version is None else f"{keys}, {places[version]} desc nulls last"
    head = f"insert into {table.name} as target ({', '.join(names)}) "
    head += f"select distinct on ({keys}) {', '.join(values)} from "  # noqa: S608 - names are quoted
    tail = f" order by {order}, position{' desc' * bool(update)} "
    tail += f"on conflict ({', '.join(map(quoted, key))}) do {_action(update, version)}"
    arrays = ", ".join(f"${number}::{column.wire}[]" for number, column in enumerate(table.columns, 1))
    types = [f"{field} {column.wire}" for field, column in zip(fields, table.columns, strict=True)]
    return Statements(
        upsert=f"{head}unnest({arrays}) with ordinality as source ({', '.join(fields)}, position){tail}",
        staging=staging,
        create_staging=f"drop table if exists pg_temp.{staging}; "
        f"create temp table {staging} ({', '.join(types)}, position int8) on commit delete rows",
        merge=f"{head}pg_temp.{staging}{tail}",
    )


def _action(update: Sequence[str], version: str | None) -> str:
    if not update:
        return "nothing"
    changes = ", ".join(f"{quoted(column)} = excluded.{quoted(column)}" for column in update)
    if version is None:
        return f"update set {changes}"
    name = quoted(version)
    return f"update set {changes} where target.{name} is null or excluded.{name} >= target.{name}"
