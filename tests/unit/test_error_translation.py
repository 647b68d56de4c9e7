"""Errors of redis-py and asyncio, as the library reports them."""

from __future__ import annotations

import asyncio

import pytest

from redis_worker.broker.connection.error_translation import is_defect, translated
from redis_worker.vocabulary.errors import Disconnected


async def test_a_time_limit_of_asyncio_is_no_defect() -> None:
    """A subscription that took too long ended its pool: the cause of the TimeoutError is a CancelledError."""
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    assert isinstance(translated(raised.value), Disconnected)
    assert not is_defect(raised.value)


def test_a_wrong_type_is_a_defect() -> None:
    assert is_defect(TypeError("an argument"))
