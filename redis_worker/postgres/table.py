"""A table as the catalogue describes it: columns with their types, and the unique index for a key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis_worker.vocabulary.errors import ConfigurationError, Refused

# Types that the driver encodes quickly and exactly; values of all others travel as text, which the server reads.
_DIRECT = ("bool", "int2", "int4", "int8", "float4", "float8")

_TABLE = "select oid, relkind from pg_class where oid = to_regclass($1)"
# The length of a text or a bit string is left out of its cast: an explicit cast would cut off what is too long.
_COLUMNS = """
with recursive column_type as (
    select a.attname, a.attnum, a.attnotnull, a.atttypid, a.atttypmod as typmod, a.attgenerated <> '' as generated,
           a.atthasdef or a.attidentity <> '' as has_default, a.attcollation, t.oid as base, t.typbasetype, t.typtype
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
    union all
    select c.attname, c.attnum, c.attnotnull or d.typnotnull, c.atttypid, -1, c.generated, c.has_default,
           c.attcollation, t.oid, t.typbasetype, t.typtype
    from column_type c join pg_type d on d.oid = c.base join pg_type t on t.oid = c.typbasetype
    where c.typtype = 'd'
)
select c.attname::text as name, c.attnotnull as not_null, c.generated, c.has_default, c.atttypid as type_id,
       format_type(c.atttypid, null) as type_name, t.typname::text as base_name, e.typname::text as element_name,
       format_type(c.base, case when t.typcategory in ('N', 'D', 'T') then c.typmod else -1 end) as cast_to,
       case when c.attcollation not in (0, t.typcollation) then
           (select quote_ident(n.nspname) || '.' || quote_ident(o.collname)
            from pg_collation o join pg_namespace n on n.oid = o.collnamespace where o.oid = c.attcollation)
       end as collation
from column_type c join pg_type t on t.oid = c.base
left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
where c.typtype <> 'd' order by c.attnum
"""
# NULLS NOT DISTINCT exists since PostgreSQL 15; older catalogues lack the column.
_INDEXES = """
select array(select a.attname::text from unnest(i.indkey[0:i.indnkeyatts - 1]) k join pg_attribute a
             on a.attrelid = i.indrelid and a.attnum = k) as columns,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false) as nulls_equal
from pg_index i where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate
and i.indpred is null and i.indexprs is null
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column to write."""

    name: str
    type_name: str
    base_name: str
    """The type's name in the catalogue, for example `int4`; for a domain that of the type below it."""
    element_name: str | None
    """For an array, the name of its elements' type."""
    cast_to: str
    """The type that the server casts the text to."""
    collation: str | None
    not_null: bool

    @property
    def direct(self) -> bool:
        """True if the driver encodes the values; otherwise they travel as text."""
        return self.base_name in _DIRECT

    @property
    def wire(self) -> str:
        """The type of the parameter."""
        return self.base_name if self.direct else "text"


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and the columns of it that a sink writes."""

    name: str
    """Quoted."""
    columns: tuple[Column, ...]
    nulls_equal: bool
    """True if the key's index takes NULL for equal to NULL."""


def quoted(identifier: str) -> str:
    """Return an identifier for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def table_name(text: str) -> str:
    """Return the quoted form of `table`, `schema.table` or `"with.dot"."in quotes"`. Raises ConfigurationError."""
    parts = re.findall(r'"(?:[^"]|"")+"|[^".]+|.', text)
    names = parts[::2]
    if not 0 < len(names) <= 2 or parts[1::2] != ["."] * (len(names) - 1) or "." in names or "\0" in text:
        raise ConfigurationError(f"table must be table or schema.table (a name with a dot in double quotes): {text!r}")
    return ".".join(name if name[0] == '"' else quoted(name) for name in names)


async def read_table(
    connection: Any,
    text: str,
    key: Sequence[str],
    named: Collection[str],
    columns: Sequence[str] | None,
    types: Mapping[str, str],
) -> Table:
    """Return the table `text` with these columns in the catalogue; None for `named` ones and all without a default.

    Raises Refused if the table, a column or a unique index for the key is missing, or a column has another type than
    `types` says.
    """
    name = table_name(text)
    found = await connection.fetchrow(_TABLE, name)
    if found is None:
        raise Refused(f"there is no table {text!r} in the database, or not on the search_path")
    if found["relkind"] not in (b"r", b"p"):
        raise Refused(f"{text!r} is no table: rows cannot be upserted into a view, a sequence or a foreign table")
    records = {record["name"]: record for record in await connection.fetch(_COLUMNS, found["oid"])}
    if columns is None:
        columns = [n for n, r in records.items() if n in named or not (r["has_default"] or r["generated"])]
    for column in (*columns, *named):
        if column not in records:
            raise Refused(f"the table {text!r} has no column {column!r}; it has {', '.join(records)}")
        if records[column]["generated"]:
            raise Refused(f"the column {column!r} of the table {text!r} is generated, and cannot be written")
    await _check_types(connection, text, records, types)
    nulls_equal = await _check_index(connection, text, found["oid"], key)
    return Table(name, tuple(_column(records[column]) for column in columns), nulls_equal)


def _column(record: Any) -> Column:
    return Column(**{name: record[name] for name in Column.__slots__})


async def _check_types(connection: Any, text: str, records: Mapping[str, Any], types: Mapping[str, str]) -> None:
    for column, wanted in types.items():
        record, type_id = records[column], await connection.fetchval("select to_regtype($1)::oid", wanted)
        if type_id is None:
            raise Refused(f"there is no type {wanted!r}, which is named for the column {column!r}")
        if type_id != record["type_id"]:
            raise Refused(f"the column {column!r} of the table {text!r} is {record['type_name']}, not {wanted}")


async def _check_index(connection: Any, text: str, table: int, key: Sequence[str]) -> bool:
    indexes = [index for index in await connection.fetch(_INDEXES, table) if set(index["columns"]) == set(key)]
    if not indexes:
        raise Refused(
            f"the table {text!r} has no primary key or unique index on ({', '.join(key)}), neither partial nor "
            f"deferrable: CREATE UNIQUE INDEX ON {table_name(text)} ({', '.join(map(quoted, key))})"
        )
    return any(index["nulls_equal"] for index in indexes)
