"""Options of decorators count where a file names the function; the file goes first, contradictions are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_worker.cli.describing import describe
from redis_worker.cron.settings import declared_by
from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.plan import JobPart, Plan, PoolPart, TopicsPart
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolve
from redis_worker.registry import find_function
from redis_worker.service.pool import WorkerPool
from redis_worker.service.routing import Route
from redis_worker.supervisor.wiring import Wiring

URL = "redis://127.0.0.1:1"
POOL = '[pools.a]\ninput = "in"\noutput = "out"\n'
MODULE = """
from datetime import timedelta
from functools import wraps
from redis_worker import Handlers, processor

handlers = Handlers()

@handlers.handler("d.x", retries=0, timeout="30s", concurrency=7, idempotent=True, remember=timedelta(hours=1))
async def hx(message): ...

@handlers.batch_handler("b.x", size=7, within="2s", retries=1, concurrency=3)
def bx(messages): ...

@handlers.handler("two.a", retries=1)
@handlers.handler("two.b", retries=2)
def two(message): ...

@handlers.handler("same.a", retries=1)
@handlers.handler("same.b", retries=1)
def same(message): ...

@handlers.default_handler(retries=5)
def anything(message): ...

@handlers.handler("as.one", retries=9)
@handlers.batch_handler("as.many", size=5)
def both(message): ...

@processor(retries=0, timeout=9)
def hp(message): ...

def logged(function):
    @wraps(function)
    def call(*arguments): return function(*arguments)
    return call

@logged
@handlers.handler("wrapped", retries=8)
def wrapped(message): ...

def plain(message): ...

@processor(timeout="1m", retries=4, retry_backoff="2s", retry_backoff_max="300s")
def tried(arguments): ...

@processor(execution="process")
def heavy(arguments): ...

@processor(timeout=3)
async def daemon(stop): ...
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "t_deco.py").write_text(MODULE)
    yield
    sys.modules.pop("t_deco", None)


def plan_of(text: str) -> Plan:
    plan = read_plan("workers.toml", text, environment={}, default_url=lambda: URL)
    resolve(plan)
    return plan


def topic(name: str, function: str, more: str = "") -> str:
    return f'[topics."{name}"]\nhandler = "t_deco:{function}"\n{more}\n'


def route_of(text: str) -> Route:
    [part] = plan_of(text).parts
    assert isinstance(part, TopicsPart)
    [route] = Wiring().topic_worker(part).routes()
    return route


async def test_a_topic_inherits_what_the_handler_declares() -> None:
    route = route_of(topic("d.x", "hx"))
    declared = route.declaration
    assert (declared.retries, declared.timeout, route.concurrency, route.remember) == (0, 30, 7, 3600)
    assert route.batching is None


async def test_the_file_goes_before_the_decorator() -> None:
    route = route_of(topic("d.x", "hx", 'retries = 2\ntimeout = "5s"\nconcurrency = 1\nidempotent = false'))
    declared = route.declaration
    assert (declared.retries, declared.timeout, route.concurrency, route.remember) == (2, 5, 1, 0)


@pytest.mark.parametrize(
    ("more", "size", "within"),
    [("", 7, 2.0), ("batch = {}", 7, 2.0), ("batch = { size = 9 }", 9, 2.0), ("batch = { within = 0 }", 7, 0.0)],
)
async def test_a_batch_handler_is_one_without_a_word_in_the_file(more: str, size: int, within: float) -> None:
    route = route_of(topic("b.x", "bx", more))
    assert route.batching is not None
    assert (route.batching.size, route.batching.within) == (size, within)
    assert (route.concurrency, route.declaration.retries) == (3, 1)


@pytest.mark.parametrize(
    ("name", "function", "retries"),
    [
        ("two.a", "two", 1),
        ("two.b", "two", 2),
        ("elsewhere", "same", 1),  # they agree, so it does not matter where it is used
        ("elsewhere", "hx", 0),
        ("elsewhere", "anything", 5),
        ("elsewhere", "wrapped", 8),  # functools.wraps carries it along
        ("as.one", "both", 9),
        ("elsewhere", "hp", 0),  # of @processor, as before
        ("elsewhere", "plain", 3),
    ],
)
async def test_which_decorator_counts(name: str, function: str, retries: int) -> None:
    assert route_of(topic(name, function)).declaration.retries == retries


async def test_one_function_in_a_file_twice_inherits_nothing_from_itself() -> None:
    [part] = plan_of(topic("a", "plain", "retries = 7") + topic("b", "plain")).parts
    assert isinstance(part, TopicsPart)
    routes = Wiring().topic_worker(part).routes()
    assert [route.declaration.retries for route in routes] == [7, 3]


def test_a_pool_inherits_what_the_processor_declares() -> None:
    [part] = plan_of(POOL + 'processor = "t_deco:tried"\nretries = 1').parts
    assert isinstance(part, PoolPart)
    declared = WorkerPool(part.url, "in", "out", "list", part.processor, **part.options).declaration
    assert (declared.retries, declared.timeout, declared.retry_backoff) == (1, 60, 2)


@pytest.mark.parametrize(
    ("more", "expected"),
    [("", (60, 4, 2, 300)), ('timeout = "5s"\nretries = 0\nretry_backoff = 200', (5, 0, 200, 300))],
)
def test_a_cron_job_inherits_what_its_function_declares(more: str, expected: tuple[float, ...]) -> None:
    [part] = plan_of(f'[cron.j]\nschedule = "* * * * *"\njob = "t_deco:tried"\n{more}').parts
    assert isinstance(part, JobPart)
    assert part.settings.job is not None
    declared = declared_by(part.settings, find_function("job", part.settings.job))
    assert (declared.timeout, declared.retries, declared.retry_backoff, declared.retry_backoff_max) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (topic("d.x", "hx", "batch = {}"), '3: topics."d.x".batch: the handler is declared to take one message'),
        (topic("c", "two"), "2: topics.c.handler: the handler is declared differently for two.b, two.a; declare it"),
        (topic("c", "both"), "2: topics.c.handler: the handler is declared differently for as.many, as.one; declare"),
        (topic("d.x", "hx", 'execution = "thread"'), '3: topics."d.x".execution: handler hx: a coroutine function'),
        (
            POOL + 'processor = "t_deco:tried"\ndelivery = "at-most-once"',
            "5: pools.a.delivery: retries need at-least-once",
        ),
        (
            '[cron.j]\nschedule = "* * * * *"\njob = "t_deco:heavy"',
            "3: cron.j.job: the cron job 'j': its function is declared to run in a process",
        ),
        (
            '[cron.j]\nschedule = "* * * * *"\njob = "t_deco:tried"\nretry_backoff = 301',
            "4: cron.j.retry_backoff: the cron job 'j': the retry backoff must be above 0 seconds and at most 300",
        ),
        ('[daemons.d]\nrun = "t_deco:daemon"', "2: daemons.d.run: the daemon 't_deco:daemon' is declared with timeout"),
    ],
)
def test_contradictions_are_told(text: str, expected: str) -> None:
    with pytest.raises(FileMistakes) as caught:
        plan_of(text)
    assert str(caught.value).startswith(f"workers.toml:{expected}")


def test_check_shows_what_is_inherited() -> None:
    text = (
        topic("d.x", "hx")
        + topic("b.x", "bx")
        + POOL
        + 'processor = "t_deco:tried"\n[cron.j]\nschedule = "* * * * *"\njob = "t_deco:tried"'
    )
    lines = list(describe(plan_of(text)))
    shown: Any = "\n".join(lines)
    assert "  d.x: hx, 7 at once, timeout 30 s, no retries, idempotent for 1 h" in shown
    assert "  b.x: bx, in batches of up to 7 within 2 s, 3 at once, 1 retry" in shown
    assert "in -> out, t_deco:tried, 4 at once, timeout 60 s, 4 retries, on " in shown
    assert "t_deco:tried, timeout 60 s, 4 retries, next " in shown
