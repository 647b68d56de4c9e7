"""A mistake in the settings or in the database is one sentence, without a password."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from redis_worker import ConfigurationError, Disconnected, Refused
from redis_worker.postgres import Lookup, OffsetStore, UpsertSink
from tests.postgres.tables import run

TABLE = "create table t (k int primary key, v text, d int, g int generated always as (k) stored)"
OPENED: list[tuple[str, dict[str, Any], str]] = [
    ("", {"table": "missing"}, "there is no table 'missing' in the database, or not on the search_path"),
    ("", {"table": "missing.t"}, "there is no table 'missing.t' in the database"),
    ("create view seen as select * from t", {"table": "seen"}, "'seen' is no table: rows cannot be upserted"),
    ("", {"columns": ["k", "w"]}, "the table 't' has no column 'w'; it has k, v, d, g"),
    ("", {"key": ["x"]}, "the table 't' has no column 'x'"),
    ("", {"version": "x", "columns": ["k", "x"]}, "the table 't' has no column 'x'"),
    ("", {"update": ["x"]}, "the table 't' has no column 'x'"),
    ("", {"columns": ["k", "g"]}, "the column 'g' of the table 't' is generated, and cannot be written"),
    ("", {"key": ["d"]}, "has no primary key or unique index on (d), neither partial nor deferrable: "
     'CREATE UNIQUE INDEX ON "t" ("d")'),
    ("create unique index on t (d) where d > 1", {"key": ["d"]}, "has no primary key or unique index on (d)"),
    ("create unique index on t (abs(d))", {"key": ["d"]}, "has no primary key or unique index on (d)"),
    ("alter table t add unique (d) deferrable", {"key": ["d"]}, "has no primary key or unique index on (d)"),
    ("create unique index on t (k, d)", {"key": ["d"]}, "has no primary key or unique index on (d)"),
    ("", {"columns": {"k": "integer", "v": "integer"}}, "the column 'v' of the table 't' is text, not integer"),
    ("", {"columns": {"k": "integer", "v": "nonsense"}}, "there is no type 'nonsense', which is named for the"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "settings", "sentence"), OPENED)
async def test_what_the_table_lacks_is_named(
    database: str, script: str, settings: dict[str, Any], sentence: str
) -> None:
    await run(database, TABLE, script or "select 1")
    sink = UpsertSink(database, **({"table": "t", "key": ["k"]} | settings))
    with pytest.raises(Refused) as caught:
        await sink.open()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    # Not only at the start: the same sentence when the first rows arrive.
    with pytest.raises(Refused) as caught:
        await sink.save([{"k": 1}])
    assert sentence in str(caught.value)
    await sink.close()


async def test_an_included_column_is_no_part_of_the_key(database: str) -> None:
    await run(database, TABLE, "create unique index on t (d) include (v)")
    async with UpsertSink(database, "t", key=["d"]) as sink:
        assert await sink.write([{"k": 1, "v": "", "d": 1}] * 2) == {}


async def test_a_login_that_fails_is_refused_without_the_password(database: str) -> None:
    start, _, end = database.rpartition("@")
    user = start.rpartition(":")[0]
    for dsn, sentence in (
        (f"{user}:wr%2Fong@{end}", 'refuses the login: password authentication failed for user "postgres"'),
        (f"{start}@{end}x", 'x" does not exist'),
        (f"{start}@{end}".replace("//postgres", "//nobody"), 'password authentication failed for user "nobody"'),
    ):
        sink = UpsertSink(dsn, "t", key=["k"])
        with pytest.raises(Refused) as caught:
            await sink.open()
        assert sentence in str(caught.value)
        assert "ong" not in str(caught.value)
        await sink.close()


async def test_missing_rights_are_refused(database: str) -> None:
    await run(
        database,
        TABLE,
        "drop owned by reader" if await _exists(database) else "create role reader login password 'p'",
        "alter role reader password 'p'",
    )
    dsn = f"postgresql://reader:p@{database.rpartition('@')[2]}"
    sink = UpsertSink(dsn, "t", key=["k"])
    with pytest.raises(Refused, match="refuses: permission denied for table t"):
        await sink.save([{"k": 1, "v": "", "d": 1}])
    await sink.close()


async def _exists(database: str) -> bool:
    from tests.postgres.tables import value

    return bool(await value(database, "select count(*) from pg_roles where rolname = 'reader'"))


async def test_an_absent_server_is_disconnected() -> None:
    sink = UpsertSink("postgresql://me:secret@127.0.0.1:1/db", "t", key=["k"])
    with pytest.raises(Disconnected, match=r"^PostgreSQL at 127\.0\.0\.1:1/db cannot be reached: .*") as caught:
        await sink.open()
    assert "secret" not in str(caught.value)


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"dsn": "mysql://me:secret@host/db"}, "the DSN of PostgreSQL must be postgresql://"),
    ({"dsn": "postgresql://me:sec/ret@host/db"}, "must be percent-encoded"),
    ({"dsn": "postgresql://me:sec?ret@host/db"}, "must be percent-encoded"),
    ({"dsn": "postgresql://[::1/db"}, "the DSN of PostgreSQL must be postgresql://"),
    ({"table": "a.b.c"}, "table must be table or schema.table"),
    ({"table": ""}, "table must be"),
    ({"key": []}, "key must name a column or more"),
    ({"key": "k"}, "key must be a list of names of columns, got 'k'"),
    ({"key": ["k", "k"]}, "key must name a column or more, each once"),
    ({"columns": ["v"]}, "key has 'k', which is not among the columns"),
    ({"columns": ["k", "v"], "update": ["w"]}, "update has 'w', which is not among the columns"),
    ({"columns": ["k", "v"], "version": "w"}, "version has 'w', which is not among the columns"),
    ({"update": [], "version": "v"}, "version needs a column that is updated"),
    ({"version": "k"}, "version needs a column that is updated"),
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"flush_after": -1}, "flush_after must not be negative"),
    ({"timeout": 0}, "timeout must be above 0"),
    ({"stores_offsets": "no"}, "stores_offsets must be True or False"),
    ({"offsets_table": "a.b.c"}, "table must be"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "sentence"), SETTINGS)
def test_a_setting_that_cannot_be_is_refused_at_once(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        UpsertSink(**({"dsn": "postgresql://host/db", "table": "t", "key": ["k"]} | settings))
    assert sentence in str(caught.value)
    assert "ret" not in str(caught.value)
    assert "sec" not in str(caught.value).replace("seconds", "")


async def test_a_wrong_option_in_the_dsn_is_one_sentence() -> None:
    sink = UpsertSink("postgresql://me:secret@127.0.0.1/db?sslmode=nonsense", "t", key=["k"])
    with pytest.raises(ConfigurationError, match="has an invalid option") as caught:
        await sink.open()
    assert "secret" not in str(caught.value)


def test_settings_of_a_lookup_and_a_store() -> None:
    for make in (lambda: Lookup("", "postgresql://h/d", max_size=0), lambda: Lookup("", "x"), lambda: OffsetStore("")):
        with pytest.raises(ConfigurationError):
            make()


def test_without_the_extra_the_sentence_says_what_to_install() -> None:
    script = "import sys; sys.modules['asyncpg'] = None\nimport redis_worker, redis_worker.ports\n"
    script += (
        "try:\n    import redis_worker.postgres\nexcept redis_worker.ConfigurationError as error:\n    print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == (
        "PostgreSQL needs the extra `postgres` (asyncpg is missing): pip install 'redis-worker[postgres]'"
    )
