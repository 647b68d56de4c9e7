"""Key names: what is derived from a key lies in its slot, and no two queues share any."""

from __future__ import annotations

from functools import cached_property

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from redis_worker.broker.connection.preflight import check_slots, lie_apart
from redis_worker.broker.keys import CronKeys, Keys, cron_stem, results_channel
from redis_worker.vocabulary.errors import ConfigurationError

OF_THE_OUTPUT = ("channel",)
keys = st.text(st.characters(codec="utf-8"), min_size=1)


def slot(key: str) -> int:
    return int(key_slot(key.encode()))


def derived(keys: Keys) -> list[str]:
    """All that is made from the input key, but for the input key itself."""
    made = [
        value for name, value in vars(Keys).items() if isinstance(value, cached_property) and name not in OF_THE_OUTPUT
    ]
    return [
        *(name for value in made if isinstance(name := value.func(keys), str)),
        keys.inflight("host-1-abc"),
        keys.arrived("host-1-abc"),
        keys.listed("host-1-abc"),
    ]


def test_derived_keys_carry_the_tag() -> None:
    keys = Keys("fib:input", "fib:output")
    assert keys.workers == "{fib:input}:workers"
    assert keys.dead == "{fib:input}:dead"
    assert keys.inflight("w") == "{fib:input}:inflight:w:tasks"
    assert keys.channel == results_channel("fib:output") == "{fib:output}:results"


def test_a_tag_of_its_own_is_kept() -> None:
    assert Keys("{fib}:input", "{fib}:output").dead == "{fib}:input:dead"


@given(keys.filter(lambda key: "{" not in key and "}" not in key))
def test_derived_keys_share_the_slot_of_a_key_without_braces(key: str) -> None:
    assert {slot(name) for name in derived(Keys(key, "out"))} == {slot(key)}


@given(keys.filter(lambda key: "{" not in key and "}" not in key), keys, keys)
@example("tag", "a}b", "}")
@example("tag", "}", "{other}")
def test_derived_keys_share_the_slot_of_a_key_with_a_tag(tag: str, before: str, after: str) -> None:
    key = f"{before.replace('{', '')}{{{tag}}}{after}"
    assert {slot(name) for name in derived(Keys(key, "out"))} == {slot(key)}


@given(keys, keys)
@example("a", "a:dead")
@example("{a}", "{{a}}")
@example("{a}", "{a}:dead")
def test_queues_share_no_derived_keys(one: str, other: str) -> None:
    assume(one != other)
    assume(f"{{{one}}}" != other)  # who names two queues `a` and `{a}` mixes them up
    assume(f"{{{other}}}" != one)
    assert not set(derived(Keys(one, "out"))) & set(derived(Keys(other, "out")))


@pytest.mark.parametrize("key", ["a}b", "{}a", "a{}b{c}", "{}"])
def test_braces_that_are_no_tag_are_refused_in_a_cluster(key: str) -> None:
    with pytest.raises(ConfigurationError, match="braces are not a hash tag; name it without braces"):
        check_slots(Keys(key, "out"))


@pytest.mark.parametrize("key", ["a", "a:b", "{a}", "x{a}y", "{a}{}", "}{a}"])
def test_other_keys_are_not(key: str) -> None:
    """`check_slots` raises for keys that it refuses, and for these it does not."""
    check_slots(Keys(key, "out"))


def test_whether_the_output_lies_apart() -> None:
    assert lie_apart(Keys("a", "b"))
    assert not lie_apart(Keys("{q}a", "{q}b"))
    assert not lie_apart(Keys("q", "{q}:out"))


def test_the_keys_of_a_cron_job_lie_in_one_slot_which_is_that_of_the_list_it_pushes_to() -> None:
    keys = CronKeys(cron_stem("shop", "report", "fib:input"))
    names = [keys.fired, keys.running, keys.runs, keys.queued, keys.ended, keys.record]
    assert {key_slot(name.encode()) for name in names} == {key_slot(b"fib:input")}
    assert len(set(names)) == 6
    assert CronKeys(cron_stem("shop", "report")).record == "{redis_worker}:cron:shop/report:record"
