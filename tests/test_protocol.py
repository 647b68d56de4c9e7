"""The wire protocol: what producers in other languages may push, and what they read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from redis_worker import start_worker_pool
from redis_worker.embedded import EmbeddedServer
from tests.support import Queue


@pytest.fixture
def drain(server: EmbeddedServer, queue: Queue) -> Any:
    async def drain(processor: str = "sum", parser: str = "list", **options: Any) -> Any:
        return await start_worker_pool(
            server.url, queue.keys.waiting, queue.keys.output, parser, processor, burst=True, **options
        )

    return drain


@pytest.mark.parametrize(
    ("id", "field"),
    [
        ("t1", "t1"),
        ("", ""),
        (0, "0"),
        (7, "7"),
        ("7", "7"),
        (-3, "-3"),
        (2**64 + 1, "18446744073709551617"),
        (10**30, "1" + "0" * 30),
        ("with spaces and {braces}", "with spaces and {braces}"),
        ("émoji 🦊", "émoji 🦊"),
        ('quote"back\\slash\nline', 'quote"back\\slash\nline'),
    ],
)
async def test_id_becomes_the_field_of_the_result(queue: Queue, drain: Any, id: Any, field: str) -> None:
    await queue.push({"id": id, "task": [1, 2, 3]})
    await drain()
    assert await queue.redis.hgetall(queue.keys.output) == {field.encode(): b'{"status":"success","result":6}'}


@pytest.mark.parametrize(
    ("processor", "task", "value"),
    [
        ("sum", [2**63, 2**64, 1], 2**63 + 2**64 + 1),
        ("sum", [-(2**70), 1], 1 - 2**70),
        ("sum", [10**400, 10**400], 2 * 10**400),
        ("add100", [10**30], 10**30 + 100),
        ("fibonacci", [300], 222232244629420445529739893461909967206666939096499764990979600),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_integers_are_exact_at_any_size(queue: Queue, drain: Any, processor: str, task: Any, value: Any) -> None:
    await queue.push({"id": 1, "task": task})
    await drain(processor)
    raw = await queue.redis.hget(queue.keys.output, "1")
    assert raw == b'{"status":"success","result":%d}' % value


async def test_fibonacci_of_the_bound_has_all_its_digits(queue: Queue, drain: Any) -> None:
    await queue.push({"id": 1, "task": [100_000]})
    await drain("fibonacci")
    raw = await queue.redis.hget(queue.keys.output, "1")
    digits = raw.removeprefix(b'{"status":"success","result":').removesuffix(b"}")
    assert len(digits) == 20899
    assert digits.startswith(b"25974069347221724166")
    assert digits.endswith(b"49895374653428746875")


async def test_an_integer_of_5000_digits_comes_through(queue: Queue, drain: Any) -> None:
    number = "7" * 5000
    await queue.push(b'{"id":1,"task":[%b]}' % number.encode())
    await drain("sum")
    assert await queue.redis.hget(queue.keys.output, "1") == b'{"status":"success","result":%b}' % number.encode()


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"id": 1}, "Parse error: task is missing"),
        ({"id": 1, "task": None}, "Parse error: task should be a list, got null"),
        ({"id": 1, "task": "x"}, "Parse error: task should be a list, got a string"),
        ({"id": 1, "task": {"a": 1}}, "Parse error: task should be a list, got an object"),
        ({"id": 1, "task": 3}, "Parse error: task should be a list, got a number"),
        ({"id": 1, "task": True}, "Parse error: task should be a list, got a boolean"),
    ],
)
async def test_a_refused_task_is_an_error_result(queue: Queue, drain: Any, payload: Any, error: str) -> None:
    await queue.push(payload)
    await drain()
    assert (
        await queue.redis.hget(queue.keys.output, "1")
        == json.dumps({"status": "error", "error": error}, separators=(",", ":")).encode()
    )
    assert await queue.dead() == []


async def test_null_is_a_task_like_any_other(queue: Queue, drain: Any) -> None:
    await queue.push({"id": 1, "task": None})
    await drain("tests.processors:echo", "any")
    assert await queue.result(1) == {"status": "success", "result": [None]}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "a set", "bytes"])
async def test_what_json_cannot_hold_is_an_error_result(queue: Queue, server: EmbeddedServer, value: str) -> None:
    made = {"NaN": float("nan"), "Infinity": [float("inf")], "a set": {1}, "bytes": b"x"}[value]
    await queue.push({"id": 1, "task": []})
    await start_worker_pool(
        server.url, queue.keys.waiting, queue.keys.output, "list", lambda arguments: made, burst=True
    )
    result = await queue.result(1)
    assert result is not None
    assert result["status"] == "error"
    assert result["error"].startswith("Processing error: ")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"id":"\xff","task":[1]}', "not JSON"),
        (b'{"id":"t1","task":[1', "not JSON"),
        (b"", "not JSON"),
        (b'{"id":1,"task":[NaN]}', "not JSON"),
        (b"[1,2]", "not a JSON object but a list"),
        (b'"text"', "not a JSON object but a string"),
        (b"null", "not a JSON object but null"),
        (b'{"task":[1]}', "the id is missing"),
        (b'{"id":null,"task":[1]}', "the id is null"),
        (b'{"id":true,"task":[1]}', "the id is a boolean"),
        (b'{"id":1.5,"task":[1]}', "the id is a number"),
        (b'{"id":[1],"task":[1]}', "the id is a list"),
    ],
)
async def test_what_cannot_be_answered_is_a_dead_letter_and_the_pool_goes_on(
    queue: Queue, drain: Any, raw: bytes, reason: str
) -> None:
    await queue.push(raw, {"id": "good", "task": [1, 2, 3]})
    counters = await drain()
    [letter] = await queue.dead()
    assert letter["reason"].startswith(reason)
    assert letter["attempts"] == 1
    if raw.isascii():
        assert letter["raw"].encode() == raw
    else:
        import base64

        assert base64.b64decode(letter["raw_base64"]) == raw
    assert await queue.results() == {"good": {"status": "success", "result": 6}}
    assert (counters.succeeded, counters.failed, counters.dead) == (1, 1, 1)


async def test_a_payload_of_20_megabytes(queue: Queue, drain: Any) -> None:
    text = "x" * 20_000_000
    await queue.push({"id": "big", "task": text}, {"id": "small", "task": 1})
    await drain("tests.processors:echo", "any")
    assert await queue.redis.hget(queue.keys.output, "big") == b'{"status":"success","result":["%b"]}' % text.encode()
    assert await queue.result("small") == {"status": "success", "result": [1]}


async def test_tasks_are_taken_from_the_left(queue: Queue, server: EmbeddedServer) -> None:
    seen: list[int] = []

    async def note(arguments: list[int]) -> None:
        seen.append(arguments[0])

    await queue.push_tasks([[n] for n in range(100)])
    await queue.redis.lpush(queue.keys.waiting, '{"id":"first","task":[-1]}')
    await start_worker_pool(server.url, queue.keys.waiting, queue.keys.output, "list", note, 1, burst=True)
    assert seen == [-1, *range(100)]


async def test_members_nobody_knows_are_kept_in_the_dead_letter(queue: Queue, drain: Any) -> None:
    raw = b'{ "trace" : "abc",  "task":[1], "nested": {"a": [1, 2]} }'
    await queue.push(raw)
    await drain()
    [letter] = await queue.dead()
    assert letter["raw"].encode() == raw


async def test_at_most_once_speaks_the_same_protocol(queue: Queue, drain: Any) -> None:
    await queue.push({"id": 0, "task": [1]}, {"id": 1, "task": "x"}, b"junk", {"id": 2, "task": [2**70]})
    await drain(delivery="at-most-once")
    results = await queue.results()
    assert results["0"] == {"status": "success", "result": 1}
    assert results["1"]["status"] == "error"
    assert results["2"] == {"status": "success", "result": 2**70}
    assert [letter["raw"] for letter in await queue.dead()] == ["junk"]
