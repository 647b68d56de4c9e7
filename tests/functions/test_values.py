"""Values: what Python's types become in JSON, back unchanged; and types that have no form are found at import."""

from __future__ import annotations

import enum
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker import ConfigurationError, TaskQueue


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


class Address(TypedDict):
    street: str
    number: int


@dataclass
class Item:
    name: str
    price: Decimal
    colours: list[Colour]


class Order(msgspec.Struct):
    id: UUID
    items: list[Item]
    at: datetime
    parent: Order | None = None


class Model(pydantic.BaseModel):
    name: str
    due: date


_times = st.datetimes(timezones=st.just(UTC))
_items = st.builds(
    Item, st.text(), st.decimals(allow_nan=False, allow_infinity=False), st.lists(st.sampled_from(Colour))
)
_orders = st.builds(Order, st.uuids(), st.lists(_items, max_size=3), _times)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(),
    bool: st.booleans(),
    bytes: st.binary(),
    datetime: _times,
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
    UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    Colour: st.sampled_from(Colour),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
    Point: st.builds(Point, st.integers(), st.integers()),
    Address: st.fixed_dictionaries({"street": st.text(), "number": st.integers()}),
    Item: _items,
    Order: st.builds(Order, st.uuids(), st.lists(_items, max_size=3), _times, _orders | st.none()),
    Model: st.builds(Model, name=st.text(), due=st.dates()),
    int | None: st.integers() | st.none(),
    set[int]: st.sets(st.integers()),
    tuple[int, str]: st.tuples(st.integers(), st.text()),
    dict[int, date]: st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.dates()),
}


@pytest.fixture
def tasks() -> Iterator[TaskQueue]:
    tasks = TaskQueue("redis://localhost:1", "values")
    yield tasks
    tasks.close_sync()


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_every_type_comes_back_as_argument_and_as_result(kind: Any, tasks: TaskQueue) -> None:
    def same(value: Any, *more: Any, named: Any = None) -> Any:
        seen.append((value, more, named))
        return value

    seen: list[Any] = []
    same.__annotations__ = {
        "value": kind,
        "more": kind,
        "named": kind | None if kind is not Address else Any,
        "return": kind,
    }
    function = tasks.task(name=str(kind))(same)

    @given(VALUES[kind])
    def check(value: Any) -> None:
        named = None if kind is Address else value
        assert function.submit_sync(value, value, named=named).result_sync() == value
        assert seen.pop() == (value, (value,), named)

    with tasks.testing():
        check()


def test_the_documented_forms(tasks: TaskQueue) -> None:
    forms: list[tuple[Any, Any]] = [
        (datetime(2026, 12, 1, 9, tzinfo=UTC), "2026-12-01T09:00:00Z"),
        (date(2026, 12, 1), "2026-12-01"),
        (time(9), "09:00:00"),
        (timedelta(days=1, seconds=30), "P1DT30S"),
        (Decimal("12.50"), "12.50"),
        (b"\xff\x00", "/wA="),
        (Colour.RED, "red"),
        (Point(1, 2), [1, 2]),
        (Item("a", Decimal(1), [Colour.BLUE]), {"name": "a", "price": "1", "colours": ["blue"]}),
        (Model(name="a", due=date(2026, 1, 1)), {"name": "a", "due": "2026-01-01"}),
        ({1: None}, {"1": None}),
        (10**30, 10**30),
    ]

    def any_value(value: Any) -> None: ...

    function = tasks.task(any_value)
    for value, form in forms:
        written = tasks._submission(function.call(value), {}).payload
        assert json.loads(written)["task"] == {"name": "any_value", "args": [form], "kwargs": {}}


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (threading.Lock, "parameter value of type"),
        (list[threading.Thread], "Thread has no form in JSON"),
        (Item | Order, "parameter value of type"),
        ("Missing", "an annotation cannot be resolved: name 'Missing' is not defined"),
    ],
)
def test_a_type_without_a_form_is_an_error_at_import(annotation: Any, text: str, tasks: TaskQueue) -> None:
    def wrong(value: Any) -> None: ...

    wrong.__annotations__["value"] = annotation
    with pytest.raises(ConfigurationError, match=text) as caught:
        tasks.task(wrong)
    assert str(caught.value).startswith("function wrong: ")
    assert "wrong" not in tasks.functions


def test_a_result_without_a_form_is_an_error_of_the_task(tasks: TaskQueue) -> None:
    @tasks.task
    def lock() -> Any:
        return threading.Lock()

    with tasks.testing(), pytest.raises(Exception, match="Processing error: lock has no form in JSON"):
        lock.submit_sync().result_sync()
