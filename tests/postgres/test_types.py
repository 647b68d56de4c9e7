"""Names, types and NULLs: what a row holds is what the table holds, whatever they are."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any

import asyncpg
import pytest

from redis_worker.postgres import UpsertSink
from redis_worker.postgres.flush import COPY_FROM
from tests.postgres.tables import rows, run, value

UTC = dt.UTC
# The name that the sink is given, and the quoted schema and table.
NAMES = [
    ('"sche.ma"."ta.ble"', '"sche.ma"', '"ta.ble"'),
    ('Sp ace."sel""ect"', '"Sp ace"', '"sel""ect"'),
    ("ünï.Table", '"ünï"', '"Table"'),
    ("$1.%s {0}", '"$1"', '"%s {0}"'),
]


class Mood(Enum):
    SAD = "sad"
    HAPPY = 'it\'s "so", {ok}\\'


class Level(IntEnum):
    LOW = 1


# Type of the column, the value in a row, and the value that the database shows as text.
CASES: list[tuple[str, Any, str | None]] = [
    ("bool", True, "true"),
    ("smallint", -32768, "-32768"),
    ("integer", Level.LOW, "1"),
    ("bigint", 2**63 - 1, "9223372036854775807"),
    ("real", 1, "1"),
    ("double precision", float("-inf"), "-Infinity"),
    ("double precision", Decimal("0.5"), "0.5"),
    ("numeric(6,2)", Decimal("1.005"), "1.01"),
    ("numeric", 10**40, str(10**40)),
    ("numeric", "NaN", "NaN"),
    ("text", "", ""),
    ("text", "NULL", "NULL"),
    ("text", 'a\\b"c\n\t,{}', 'a\\b"c\n\t,{}'),
    ("varchar(3)", "abc", "abc"),
    ("char(5)", "ab", "ab   "),
    ("bit(3)", "101", "101"),
    ("varbit(5)", "101", "101"),
    ("bytea", b"\x00\xff\\", "\\x00ff5c"),
    ("date", "2024-02-29", "2024-02-29"),
    ("date", dt.date(2024, 2, 29), "2024-02-29"),
    ("date", "infinity", "infinity"),
    ("time", dt.time(23, 59, 59, 999999), "23:59:59.999999"),
    ("timestamp", dt.datetime(2024, 1, 1, 12), "2024-01-01 12:00:00"),
    ("timestamp(0)", "2024-01-01T00:00:00.6", "2024-01-01 00:00:01"),
    ("timestamptz", "2024-01-01T12:00:00+02:00", "2024-01-01 10:00:00+00"),
    ("timestamptz", dt.datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01 00:00:00+00"),
    ("interval", dt.timedelta(days=-1, microseconds=5), "-1 days +00:00:00.000005"),
    ("uuid", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ("inet", "10.0.0.1/8", "10.0.0.1/8"),
    ("int4range", "[1,5)", "[1,5)"),
    ("jsonb", {"a": [1, None, "x'\"\\"]}, '{"a": [1, null, "x\'\\"\\\\"]}'),
    ("jsonb", "a text", '"a text"'),
    ("json", [1, 2.5, False], "[1,2.5,false]"),
    ("integer[]", [1, None, -3], "{1,NULL,-3}"),
    ("integer[]", [[1, 2], [3, 4]], "{{1,2},{3,4}}"),
    ("integer[]", [], "{}"),
    ("text[]", ["a", None, "NULL", 'q"\\,{}', ""], '{a,NULL,"NULL","q\\"\\\\,{}",""}'),
    ("numeric(4,1)[]", [Decimal("1.25")], "{1.3}"),
    ("jsonb[]", [{"a": 1}, [1]], '{"{\\"a\\": 1}",[1]}'),
    ("bytea[]", [b"\x01"], '{"\\\\x01"}'),
    ("mood", "sad", "sad"),
    ("mood", Mood.HAPPY, Mood.HAPPY.value),
    ("mood[]", [Mood.SAD, "sad"], "{sad,sad}"),
    ("positive", 5, "5"),
    ("short", "abc", "abc"),
    ("pair", "(1,x)", "(1,x)"),
    *(
        (type_, None, None)
        for type_ in ("bool", "integer", "text", "jsonb", "integer[]", "mood", "positive", "numeric")
    ),
]
TYPES = """
create type mood as enum ('sad', 'it''s "so", {ok}\\');
create domain positive as int check (value > 0);
create domain short as varchar(3);
create type pair as (a int, b text);
"""


@pytest.mark.parametrize("filling", [0, COPY_FROM], ids=["unnest", "copy"])
async def test_every_type_arrives(database: str, filling: int) -> None:
    columns = ", ".join(f"c{number} {type_}" for number, (type_, _, _) in enumerate(CASES))
    await run(database, TYPES, f"create table t (k int primary key, {columns})")
    row = {"k": 1} | {f"c{number}": given for number, (_, given, _) in enumerate(CASES)}
    empty = dict.fromkeys(row)
    async with UpsertSink(database, "t", key=["k"]) as sink:
        assert await sink.write([row, *({**empty, "k": -n} for n in range(filling))]) == {}
    texts = ", ".join(f"c{number}::text" for number in range(len(CASES)))
    (stored,) = await rows(database, f"select {texts} from t where k = 1")
    # A cast of char(n) to text drops its blanks.
    assert list(stored) == [
        text.rstrip() if text is not None and type_.startswith("char") else text for type_, _, text in CASES
    ]


REFUSED: list[tuple[str, Any, str]] = [
    ("integer", "5", "the column 'c' is integer: a whole number is expected, not a value of the type str"),
    ("integer", 1.0, "a whole number is expected"),
    ("integer", True, "a whole number is expected"),
    ("integer", 2**31, "the column 'c' is integer: value out of int32 range"),
    ("real", "1", "a number is expected"),
    ("double precision", 10**400, "int too large to convert to float"),
    ("bool", 1, "True or False is expected"),
    ("text", 5, "the column 'c' is text: a text is expected, not a value of the type int"),
    ("text", "a\0", "invalid byte sequence"),
    ("text", "\ud800", "surrogates not allowed"),
    ("varchar(3)", "abcd", "value too long for type character varying(3)"),
    ("char(3)", "abcd", "value too long for type character(3)"),
    ("bit(3)", "1011", "bit string length 4 does not match type bit(3)"),
    ("varchar(3)[]", ["abcd"], "value too long"),
    ("short", "abcd", "value too long"),
    ("positive", -1, "violates check constraint"),
    ("numeric(3,1)", 1000, "numeric field overflow"),
    ("date", "2024-02-30", "date/time field value out of range"),
    ("mood", "angry", 'invalid input value for enum mood: "angry"'),
    ("jsonb", float("nan"), "the column 'c' is jsonb: nan is no JSON number"),
    ("jsonb", {1, 2}, "a set is no JSON value"),
    ("integer[]", 5, "an array is a list"),
    ("integer[]", [[1], 2], "malformed array literal"),
    ("uuid", {"a": 1}, "a value of the type dict cannot be written"),
]


async def test_each_value_that_does_not_fit_is_refused_with_a_reason(database: str) -> None:
    """A row each in one batch, between two good ones."""
    columns = [f"c{number}" for number in range(len(REFUSED))]
    types = ", ".join(f"{column} {type_}" for column, (type_, _, _) in zip(columns, REFUSED, strict=True))
    await run(database, TYPES, f"create table t (k int primary key, {types})")
    empty = dict.fromkeys(columns)
    bad = [{**empty, "k": 1, column: given} for column, (_, given, _) in zip(columns, REFUSED, strict=True)]
    async with UpsertSink(database, "t", key=["k"]) as sink:
        refused = await sink.write([{**empty, "k": 0}, *bad, {**empty, "k": 2}])
    assert list(refused) == list(range(1, len(bad) + 1))
    for column, (_, _, reason), found in zip(columns, REFUSED, refused.values(), strict=True):
        assert reason.replace("'c'", f"'{column}'") in found
    assert await value(database, "select count(*) from t") == 2


@pytest.mark.parametrize(("given", "schema", "table"), NAMES)
async def test_any_names_are_quoted(database: str, given: str, schema: str, table: str) -> None:
    columns = ['a "b"', "Select", "x;drop table y--", "ü", "$1", "%s"]
    quoted = ", ".join('"' + column.replace('"', '""') + '" int' for column in columns)
    await run(
        database,
        f"create schema {schema}",
        f'create table {schema}.{table} ({quoted}, primary key ("Select", "ü"))',
    )
    async with UpsertSink(database, given, key=["ü", "Select"], columns=columns, version="%s") as sink:
        for number in range(2):
            assert await sink.write([dict.fromkeys(columns, 1) | {"$1": number}] * 2) == {}
    assert await rows(database, f"select * from {schema}.{table}") == [(1, 1, 1, 1, 1, 1)]


async def test_equal_keys_are_found_by_the_rules_of_the_database(database: str) -> None:
    """Texts that Python takes for different, and the database for equal."""
    columns = "day date, amount numeric(6,2), id uuid, n int"
    await run(database, f"create table t ({columns}, primary key (day, amount, id))")
    id = uuid.uuid4()
    batch = [
        {"day": "2024-01-05", "amount": "1.5", "id": str(id), "n": 1},
        {"day": "2024-1-5", "amount": Decimal("1.500"), "id": str(id).upper(), "n": 2},
        {"day": dt.date(2024, 1, 5), "amount": 1.501, "id": id, "n": 3},
    ]
    async with UpsertSink(database, "t", key=["day", "amount", "id"]) as sink:
        assert await sink.write(batch) == {}
        assert sink.counters.written == 1
    assert await rows(database, "select n from t") == [(3,)]


async def test_equal_names_are_found_by_the_collation_of_the_column(database: str) -> None:
    try:
        await run(
            database, "create collation nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except asyncpg.FeatureNotSupportedError:
        pytest.skip("this PostgreSQL is built without ICU, and has no collation that ignores case")
    await run(database, "create table t (name text collate nocase primary key, n int)")
    async with UpsertSink(database, "t", key=["name"]) as sink:
        assert await sink.write([{"name": name, "n": n} for n, name in enumerate(("abc", "ABC", "Abc"))]) == {}
        assert sink.counters.written == 1
    assert await rows(database, "select n from t") == [(2,)]


async def test_versions_are_compared_by_the_database(database: str) -> None:
    await run(database, "create table t (k int primary key, at timestamptz, v int)")
    later, earlier = "2024-01-01T10:00:00-05:00", "2024-01-01T14:00:00Z"  # later in time, and earlier in the alphabet
    async with UpsertSink(database, "t", key=["k"], version="at") as sink:
        await sink.write([{"k": 1, "at": later, "v": 1}, {"k": 1, "at": earlier, "v": 2}])
        await sink.write([{"k": 1, "at": earlier, "v": 3}, {"k": 2, "at": None, "v": 4}])
        await sink.write([{"k": 1, "at": None, "v": 5}, {"k": 2, "at": None, "v": 6}])
    assert dict(await rows(database, "select k, v from t")) == {1: 1, 2: 6}


async def test_by_default_columns_without_a_default_are_written(database: str) -> None:
    await run(
        database,
        "create table t (k int primary key, v int, twice int generated always as (v * 2) stored,"
        " n int generated always as identity, at timestamptz not null default now())",
    )
    async with UpsertSink(database, "t", key=["k"]) as sink:
        assert await sink.write([{"k": 1, "v": 2, "others": "are left alone"}]) == {}
    assert await rows(database, "select k, v, twice, n, at is null from t") == [(1, 2, 4, 1, False)]


async def test_only_the_columns_of_update_change(database: str) -> None:
    await run(database, "create table t (k int primary key, a int, b int)")
    async with UpsertSink(database, "t", key=["k"], update=["b"]) as sink:
        for number in range(2):
            await sink.write([{"k": 1, "a": number, "b": number}])
    assert await rows(database, "select * from t") == [(1, 0, 1)]


async def test_json_of_jsonb_is_exact(database: str) -> None:
    await run(database, "create table t (k int primary key, j jsonb)")
    document = {"n": 12345678901234567890123, "s": "ü\u2028", "deep": [[[{}]]]}
    async with UpsertSink(database, "t", key=["k"]) as sink:
        assert await sink.write([{"k": 1, "j": document}]) == {}
    assert json.loads(await value(database, "select j::text from t")) == document
