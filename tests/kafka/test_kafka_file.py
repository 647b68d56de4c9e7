"""Kafka parts in a file: what they come to, what the environment supplies, and all that can be wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.plan import KafkaPart, Plan, SinkSettings, Supervision
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolve
from redis_worker.supervisor.process.transfer import packed, unpacked
from redis_worker.vocabulary.payload import dumps, loads
from tests.support import PATIENCE, ROOT

SERVERS = '[kafka]\nbrokers = "b:9092"\ngroup = "g"\n'
PART = '[kafka.cases]\ntopics = "raw"\nhandler = "tests.kafka.rows:to_row"\n'
SINK = '[kafka.cases.sink]\ndsn = "postgresql://h/d"\ntable = "t"\nkey = ["id"]\n'
WORKING = SERVERS + PART
SINKING = WORKING + SINK


def plan_of(text: str, environment: Mapping[str, str] | None = None, **selection: Any) -> Plan:
    def no_redis() -> str:
        pytest.fail("no part needs Redis")

    variables = environment or {}
    return read_plan("workers.toml", dedent(text), environment=variables, default_url=no_redis, **selection)


def part_of(text: str, environment: Mapping[str, str] | None = None) -> KafkaPart:
    [part] = plan_of(text, environment).parts
    assert isinstance(part, KafkaPart)
    return part


def mistakes_of(text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(FileMistakes) as caught:
        resolve(plan_of(text, environment))
    return str(caught.value).splitlines()


def test_a_part_with_all_there_is() -> None:
    part = part_of(
        """
        [worker]
        connect_timeout = 3
        max_restarts = 5

        [kafka]
        brokers = ["a:9092", "b:9092"]
        group = "shop"
        properties = { "security.protocol" = "SASL_SSL", "session.timeout.ms" = 6000 }
        wait = true

        [kafka.cases]
        topics = ["raw", "^other"]
        handler = "m:f"
        decode = "m:Report"
        group = "cases"
        properties = { "session.timeout.ms" = 9000 }
        concurrency = 8
        ordered = true
        batch = { size = 500, within = "50ms" }
        retries = 5
        dead_letters = "raw.dead"
        instance_id = "${HOSTNAME}"
        revoke_timeout = "5s"
        offsets = "postgres"
        processes = 2
        shutdown_timeout = 4

        [kafka.cases.sink]
        type = "postgres"
        dsn = "postgresql://u:hush@h/d"
        table = "public.cases"
        key = ["date", "city"]
        columns = { cases = "integer" }
        update = ["cases"]
        version = "report"
        batch_size = 1000
        flush_after = "200ms"
        offsets_table = "offsets"
        """,
        {"HOSTNAME": "web1"},
    )
    assert part == KafkaPart(
        "cases",
        "a:9092,b:9092",
        ["raw", "^other"],
        "cases",
        "m:f",
        "m:Report",
        SinkSettings(
            "postgresql://u:hush@h/d",
            "public.cases",
            ["date", "city"],
            {
                "columns": {"cases": "integer"},
                "update": ["cases"],
                "version": "report",
                "batch_size": 1000,
                "flush_after": 0.2,
                "offsets_table": "offsets",
                "stores_offsets": True,
            },
        ),
        properties={"security.protocol": "SASL_SSL", "session.timeout.ms": 9000},
        options={
            "connect_timeout": 3.0,
            "wait": True,
            "concurrency": 8,
            "ordered": True,
            "batch": True,
            "size": 500,
            "within": 0.05,
            "retries": 5,
            "dead_letters": "raw.dead",
            "instance_id": "web1",
            "revoke_timeout": 5.0,
        },
        supervision=Supervision(max_restarts=5, processes=2, shutdown_timeout=4.0),
    )
    assert unpacked(loads(dumps(packed(part)))) == part
    assert "hush" not in repr(part)


def test_the_environment_supplies_servers_and_the_size_of_batches() -> None:
    environment = {
        "KAFKA_BROKERS": "there:9092",
        "CONSUMER_GROUP": "env",
        "DATABASE_URL": "postgresql://second/d",
        "POSTGRES_DSN": "postgresql://first/d",
        "BATCH_SIZE": "700",
    }
    text = PART + '[kafka.cases.sink]\ntable = "t"\nkey = "id"\n'
    part = part_of(text, environment)
    assert (part.brokers, part.group) == ("there:9092", "env")
    assert isinstance(part.sink, SinkSettings)
    assert (part.sink.dsn, part.sink.options["batch_size"]) == ("postgresql://first/d", 700)
    del environment["POSTGRES_DSN"]
    second = part_of(text, environment).sink
    assert isinstance(second, SinkSettings)
    assert second.dsn == "postgresql://second/d"
    written = part_of(SERVERS + PART + SINK + "batch_size = 3", environment)
    assert (written.brokers, written.group) == ("b:9092", "g")
    assert isinstance(written.sink, SinkSettings)
    assert (written.sink.dsn, written.sink.options["batch_size"]) == ("postgresql://h/d", 3)


def test_redis_is_needed_for_a_list_of_dead_letters_only() -> None:
    assert plan_of(SERVERS + PART).url is None
    text = SERVERS + PART + 'dead_list = "raw:dead"\n'
    plan = read_plan("workers.toml", text, environment={}, default_url=lambda: "redis://there")
    [part] = plan.parts
    assert isinstance(part, KafkaPart)
    assert part.url == plan.url == "redis://there"


def test_what_is_disabled_needs_no_servers() -> None:
    assert plan_of(PART + "enable = false").parts == ()
    assert plan_of("[kafka]\nenable = false\n" + PART).parts == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PART, "1: cases: brokers is missing: set it here, in [kafka], or as KAFKA_BROKERS in the"),
        (
            WORKING + 'brokers = "redis://:hush@localhost:9"',
            "7: cases.brokers: must be host:port,host:port; a user name",
        ),
        (WORKING + 'brokers = ["a:1", "b:hush"]', "7: cases.brokers: must be host:port,host:port; a user name"),
        (WORKING + 'topic = "x"', "7: cases.topic: unknown key, did you mean topics?"),
        (SERVERS + '[kafka.cases]\nhandler = "m:f"', "4: cases: the key topics is missing"),
        (WORKING + "topics2 = []", "7: cases.topics2: unknown key, did you mean topics?"),
        (SERVERS.replace('"g"', "3") + PART, "3: group: must be a text in quotes, got 3"),
        (WORKING + "concurrency = 0", "7: cases.concurrency: must be at least 1, got 0"),
        (WORKING + 'ordered = "no"', "7: cases.ordered: must be one of none, partition, key"),
        (WORKING + 'wait = "${WAIT}"', '7: cases.wait: must be true or false, got "${WAIT}"'),
        (WORKING + "batch = { sise = 3 }", "7: cases.batch.sise: unknown key"),
        (WORKING + 'offsets = "postgres"', '7: cases.offsets: must be "kafka" without a table'),
        (WORKING + "sink = 3", "7: cases.sink: must be a text in quotes, got 3"),
        (
            WORKING + '[kafka.cases.sink]\ntable = "t"\nkey = ["id"]',
            "7: cases.sink: dsn is missing: set it here, or as POSTGRES_DSN or DATABASE_URL in the",
        ),
        (
            WORKING + '[kafka.cases.sink]\ndsn = "postgresql://h/d"\nkey = "id"',
            "7: cases.sink: the key table is missing",
        ),
        (SINKING + "kee = 1", "11: cases.sink.kee: unknown key, did you mean key?"),
        (SINKING + "batch_size = 0", "11: cases.sink.batch_size: must be at least 1, got 0"),
        (SINKING + 'type = "mysql"', "11: cases.sink.type: must be one of postgres, got"),
        # Names and settings that only their objects know:
        (WORKING + 'decode = "json:nix"', "7: cases.decode: the decoder 'json:nix': module json has no"),
        (SERVERS + PART.replace("to_row", "to_now"), "6: cases.handler: the handler 'tests.kafka.rows:to_now'"),
        (WORKING + 'sink = "json:nix"', "7: cases.sink: the sink 'json:nix': module json has no"),
        (WORKING + 'sink = "tests.kafka.rows:NAMES"', "7: cases.sink: the sink 'tests.kafka.rows:NAMES' is a tuple"),
        (SERVERS + PART.replace('"raw"', '"no topic"'), "5: cases.topics: 'no topic' is no topic of Kafka"),
        (SERVERS + PART.replace('"raw"', '"^("'), "5: cases.topics: the topic '^(' is no regular expression"),
        (WORKING + 'properties = { "group.id" = "x" }', "7: cases.properties: the Kafka property group.id"),
        (WORKING + "properties = { nix = 1 }", "7: cases.properties: the settings of Kafka are not valid"),
        (SERVERS + "properties = { nix = 1 }\n" + PART, "4: properties: the settings of Kafka are not valid"),
        (WORKING + SINK.replace('"t"', '"a.b.c"'), "9: cases.sink.table: table must be table or schema.table"),
        (
            WORKING + SINK.replace("://", "://u:hu/sh@"),
            "8: cases.sink.dsn: the DSN of PostgreSQL must be postgresql://user:password@host:port/database",
        ),
        (SINKING + 'version = "id"', "11: cases.sink.version: version needs a column that is updated"),
        (WORKING + 'timeout = 3\nexecution = "inline"', "8: cases.execution: "),
    ],
)
def test_a_mistake_has_its_line(text: str, expected: str) -> None:
    [mistake] = [each for each in mistakes_of(text, {"WAIT": "hush"}) if "group is missing" not in each]
    line, _, text = expected.partition(": ")
    assert mistake.startswith(f"workers.toml:{line}: kafka.{text}")
    assert "hush" not in mistake


def test_a_variable_that_is_no_number_is_named_and_not_quoted() -> None:
    mistakes = mistakes_of(SERVERS + PART + SINK, {"BATCH_SIZE": "hush"})
    assert mistakes == [
        'workers.toml:7: kafka.cases.sink: batch_size must be a whole number, got "${BATCH_SIZE}"',
    ]


def test_check_lists_the_parts(tmp_path: Path) -> None:
    file = tmp_path / "workers.toml"
    file.write_text(SERVERS + PART + "ordered = true\nprocesses = 2\n" + SINK)
    done = subprocess.run(
        [sys.executable, "-m", "redis_worker", "check", str(file)],
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": "redis://nowhere:1"},
    )
    assert done.returncode == 0, done.stderr
    assert "raw -> t, tests.kafka.rows:to_row, 4 at once" in done.stdout
    assert "ordered by partition, group g, on b:9092, in 2 processes of its own" in done.stdout
