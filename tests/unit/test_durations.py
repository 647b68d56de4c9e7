"""Times in Python are what they are in the file: seconds, a timedelta, or a text with a unit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker import ConfigurationError, Handlers, PoolOptions, Retry, TopicWorker, WorkerPool, processor
from redis_worker.file.values import seconds
from redis_worker.vocabulary.duration import Duration, seconds_of
from redis_worker.vocabulary.processor import declaration_of

URL = "redis://127.0.0.1:1"
FORMS: list[Duration] = [90, 90.0, timedelta(seconds=90), "90", "90s", "1.5m", "90000ms"]


async def handle(message: Any) -> None: ...


def of_processor(name: str, value: Any) -> Any:
    def function(arguments: Any) -> None: ...

    # The longest delay must not be below the first one.
    more = {"retry_backoff_max": 1000} if name == "retry_backoff" else {}
    return getattr(declaration_of(processor(**{name: value}, **more)(function)), name)


def of_handler(name: str, value: Any) -> Any:
    handlers = Handlers()
    more = {"retry_backoff_max": 1000} if name == "retry_backoff" else {}
    handlers.handler("t", **{name: value}, **more)(handle)
    [route] = handlers.routes()
    return getattr(route.declaration, name)


def remembered(value: Any) -> Any:
    handlers = Handlers()
    handlers.handler("t", idempotent=True, remember=value)(handle)
    return handlers.routes()[0].remember


def within(value: Any) -> Any:
    handlers = Handlers()
    handlers.batch_handler("t", within=value)(handle)
    batching = handlers.routes()[0].batching
    assert batching is not None
    return batching.within


PLACES: dict[str, Callable[[Any], Any]] = {
    **{
        f"PoolOptions {name}": lambda value, name=name: getattr(PoolOptions(**{name: value}), name)
        for name in ("timeout", "lease", "connect_timeout", "shutdown_timeout", "retry_backoff", "retry_backoff_max")
    },
    "PoolOptions result_ttl": lambda value: PoolOptions(result_ttl=value).result_ttl,
    "WorkerPool timeout": lambda value: WorkerPool(URL, "i", "o", "list", handle, timeout=value).declaration.timeout,
    **{
        f"TopicWorker {name}": lambda value, name=name: getattr(TopicWorker(URL, **{name: value}).options, name)
        for name in ("lease", "connect_timeout", "shutdown_timeout")
    },
    **{
        f"{how.__name__} {name}": lambda value, how=how, name=name: how(name, value)
        for how in (of_processor, of_handler)
        for name in ("timeout", "retry_backoff", "retry_backoff_max")
    },
    "remember": remembered,
    "within": within,
    "Retry": lambda value: Retry(delay=value).seconds(),
    "the file": seconds(),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_every_form_is_accepted_wherever_there_is_a_time(place: str, form: Duration) -> None:
    assert PLACES[place](form) == 90


@pytest.mark.parametrize("place", [place for place in PLACES if place not in ("the file", "Retry")])
@pytest.mark.parametrize(
    "wrong", ["soon", "", "5 parsecs", "-1x", [], {}, True, b"90s", object, float("nan")], ids=repr
)
def test_what_is_no_time_is_told_in_one_sentence(place: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PLACES[place](wrong)
    text = str(caught.value)
    assert 'must be a number of seconds, or a text as "90s", "1.5m" or "24h"' in text
    assert repr(wrong) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"concurrency": "4"}, "concurrency must be a whole number, got '4'"),
        ({"concurrency": 1.5}, "concurrency must be a whole number, got 1.5"),
        ({"concurrency": None}, "concurrency must be a whole number, got None"),
        ({"max_deliveries": True}, "max_deliveries must be a whole number, got True"),
        ({"retries": "many"}, "retries must be a whole number, got 'many'"),
        ({"dead_limit": []}, r"dead_limit must be a whole number, got \[\]"),
        ({"burst": "no"}, "burst must be True or False, got 'no'"),
        ({"lease": "1s"}, "lease must be at least 2, got 1s"),
        ({"lease": timedelta(days=1e8)}, "lease is too long"),
        ({"lease": None}, "lease must be a number of seconds"),
        ({"lease": Decimal(3)}, "lease must be a number of seconds"),
        ({"result_ttl": "1500ms"}, "result_ttl must be a whole number, got 1.5"),
        ({"timeout": -1}, "the time limit must be above 0 seconds, got -1"),
        ({"shutdown_timeout": timedelta(seconds=-1)}, "shutdown_timeout must not be negative"),
    ],
    ids=str,
)
def test_a_setting_of_the_wrong_type_or_out_of_range(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        WorkerPool(URL, "i", "o", "list", handle, **options)


def test_a_topic_worker_says_the_same() -> None:
    for name in ("concurrency", "max_deliveries", "dead_limit"):
        with pytest.raises(ConfigurationError, match=f"{name} must be a whole number, got '4'"):
            TopicWorker(URL, **{name: "4"})


def test_handlers_options_of_the_wrong_type() -> None:
    for name, value, sentence in (
        ("concurrency", "4", "handler handle: concurrency must be a whole number, got '4'"),
        ("retries", "4", "handler handle: retries must be a whole number, got '4'"),
        ("idempotent", "yes", "handler handle: idempotent must be True or False, got 'yes'"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            Handlers().handler("t", **{name: value})(handle)
    with pytest.raises(ConfigurationError, match=r"handler handle: size must be a whole number, got 1\.5"):
        Handlers().batch_handler("t", size=1.5)(handle)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"the default handler takes the options of handler\(\), not size"):
        Handlers().default_handler(size=3)(handle)
    with pytest.raises(ConfigurationError, match=r"the batch handler takes the options of batch_handler\(\), not sise"):
        Handlers().batch_handler("t", sise=3)


@given(st.integers(0, 10**9))
def test_all_forms_of_a_time_are_the_same_time(milliseconds: int) -> None:
    expected = milliseconds / 1000
    for form in (expected, timedelta(milliseconds=milliseconds), f"{milliseconds}ms", f"{expected:f}s"):
        assert seconds_of(form) == pytest.approx(expected)
