"""Flows: steps that wait for others, get their results, and fail with them or not; no release is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from redis_worker import ConfigurationError, Handle, Retry, TaskError, TaskQueue, chain, group
from redis_worker.broker.operator.control import QueueControl
from redis_worker.broker.operator.doctor.examination import examine
from redis_worker.broker.operator.status import StatusReader
from redis_worker.embedded import EmbeddedServer
from tests.functions.conftest import Start, end
from tests.support import PATIENCE, Queue, wait_until

FLOW = ("flow", "flow_left", "flow_edges")


async def is_clean(queue: Queue) -> bool:
    """Return True if no step is parked, and no record is left."""
    return not await queue.redis.exists(*(f"{queue.keys.stem}:{name}" for name in FLOW), queue.keys.unique)


class Sums:
    """Functions of one queue that need no worker of their own process."""

    def __init__(self, tasks: TaskQueue) -> None:
        self.runs: Counter[str] = Counter()

        @tasks.task
        async def number(value: int) -> int:
            if value < 0:
                raise ValueError("below zero")
            return value

        @tasks.task
        async def add(left: int, right: int = 1) -> int:
            return left + right

        @tasks.task
        def total(values: list[int | None], more: dict[str, int] | None = None) -> int:
            return sum(filter(None, values)) + sum((more or {}).values())

        self.number, self.add, self.total = number, add, total


@pytest.fixture(params=["worker", "testing"])
def how(request: pytest.FixtureRequest) -> str:
    """Where flows run."""
    return str(request.param)


async def test_chains_groups_and_inputs(tasks: TaskQueue, queue: Queue, how: str) -> None:
    sums = Sums(tasks)
    async with tasks.worker() if how == "worker" else tasks.testing():
        last = await chain(sums.number.call(1), sums.add, sums.add.options(retries=2), sums.add).submit()
        assert await last.result(PATIENCE) == 4
        handles = await group(*(sums.number.call(value) for value in range(3))).submit()
        assert [await handle.result(PATIENCE) for handle in handles] == [0, 1, 2]
        parts = group(sums.number.call(1), chain(sums.number.call(2), sums.add, sums.add))
        assert await (await chain(parts, sums.total, sums.add).submit()).result(PATIENCE) == 6
        assert await (await chain(group(), sums.total).submit()).result(PATIENCE) == 0
        first, second = await sums.number.submit_many([(5,), (7,)])
        odd = sums.total.options(id='a "b" é')
        both = await odd.submit([first.as_input, 1, second.as_input], {"x": first.as_input})
        assert await both.result(PATIENCE) == 18
        again = await sums.total.options(after=both, id="last").submit([both.as_input, both.as_input])
        assert await again.result(PATIENCE) == 36
        assert await sums.total.options(after=first, id="last").submit([]) == again  # it is there
        a_call = chain(sums.number.call(1), sums.number.call(9)).submit
        assert await (await a_call()).result(PATIENCE) == await (await a_call()).result(PATIENCE) == 9
    assert await is_clean(queue)


async def test_without_an_event_loop(tasks: TaskQueue) -> None:
    sums = Sums(tasks)

    def program() -> list[int]:
        handles = group(sums.number.call(1), chain(sums.number.call(2), sums.add)).submit_sync()
        last = chain(sums.number.call(1), sums.add).submit_sync()
        three = sums.add.submit_sync(last.as_input)
        values = [handle.result_sync(30) for handle in (*handles, last, three)]
        tasks.close_sync()
        return values

    async with tasks.worker():
        assert await asyncio.to_thread(program) == [1, 3, 2, 3]


async def test_a_failed_step_fails_what_waits_or_not(tasks: TaskQueue, queue: Queue, how: str) -> None:
    sums = Sums(tasks)
    async with tasks.worker() if how == "worker" else tasks.testing():
        bad, good = await sums.number.submit_many([(-1,), (1,)])
        failing = await sums.total.submit([bad.as_input, good.as_input])
        after_it = await sums.add.submit(failing.as_input)
        running = await sums.total.options(on_failure="run").submit([bad.as_input, good.as_input, failing.as_input])
        for handle in (failing, after_it):
            with pytest.raises(TaskError) as raised:
                await handle.result(PATIENCE)
            assert raised.value.error == (
                f"Processing error: not run: the task {bad.id} failed: Processing error: below zero"
            )
        assert await running.result(PATIENCE) == 1
        assert await (await sums.number.options(after=after_it, on_failure="run").submit(3)).result(PATIENCE) == 3
        assert [await handle.status() for handle in (bad, failing, after_it)] == ["failed"] * 3
        late = await sums.add.submit(bad.as_input)  # which is answered by now
        assert await late.status() == "failed"
    assert await is_clean(queue)


async def test_a_released_step_keeps_its_priority(server: EmbeddedServer, queue: Queue) -> None:
    tasks = TaskQueue(server.url, queue.keys.waiting, results=queue.keys.output, priorities=("high", "default"))
    sums = Sums(tasks)
    first = await sums.number.options(priority="high").submit(1)
    assert await queue.redis.lpop(queue.keys.list_with("high"))
    step = await sums.add.options(priority="high").submit(first.as_input)
    with pytest.raises(ConfigurationError, match="priorit"):
        await sums.add.options(priority="low").submit(first.as_input)
    assert await queue.redis.hset(queue.keys.output, first.id, '{"status":"success","result":4}')
    again = await sums.add.options(priority="high").submit(first.as_input)  # the answer counts for both
    assert await queue.redis.llen(queue.keys.list_with("high")) == 2
    async with tasks.worker():
        assert [await step.result(PATIENCE), await again.result(PATIENCE)] == [5, 5]
    await tasks.close()
    await queue.redis.delete(queue.keys.announced)
    assert await is_clean(queue)


async def test_inputs_that_are_gone_and_long_reasons(tasks: TaskQueue, queue: Queue) -> None:
    go = asyncio.Event()
    sums = Sums(tasks)

    @tasks.task
    async def wait(text: str = "") -> int:
        await go.wait()
        if text:
            raise ValueError(text)
        return 1

    async with tasks.worker():
        gone, slow, wordy = await sums.number.submit(1), await wait.submit(), await wait.submit("é\"' " * 1000)
        assert await gone.result(PATIENCE) == 1
        step = await sums.total.submit([gone.as_input, slow.as_input])
        long = await sums.add.submit(wordy.as_input)
        assert await gone.forget()
        go.set()
        with pytest.raises(TaskError, match=f"not run: the task {gone.id} has no result any more"):
            await step.result(PATIENCE)
        with pytest.raises(TaskError, match=f"not run: the task {wordy.id} failed: Processing error: é\"' .* …$"):
            await long.result(PATIENCE)
    assert await is_clean(queue)


async def test_a_retry_releases_nothing_and_a_dead_letter_is_a_failure(tasks: TaskQueue, queue: Queue) -> None:
    tries: list[bool] = []
    sums = Sums(tasks)

    @tasks.task(retries=2, retry_backoff=0.01)
    async def flaky(is_mended: bool) -> int:
        if not tries:  # the step after it may not be submitted yet
            await wait_until(lambda: queue.redis.hlen(queue.keys.flow))
        tries.append(bool(await queue.redis.hlen(queue.keys.flow)))
        if len(tries) < 3 or not is_mended:
            raise Retry(delay=0.01) if is_mended else OSError("away")
        return 1

    async with tasks.worker():
        assert await (await chain(flaky.call(True), sums.add).submit()).result(PATIENCE) == 2
        assert tries == [True] * 3
        with pytest.raises(TaskError, match="failed: Processing error: away"):
            await (await chain(flaky.call(False), sums.add).submit()).result(PATIENCE)
        assert len(await queue.dead()) == 1
    assert await is_clean(queue)


async def test_cancelled_steps_fail_what_waits_for_them(tasks: TaskQueue, queue: Queue, how: str) -> None:
    sums = Sums(tasks)
    if how == "testing":
        async with tasks.testing():
            parked = await sums.number.options(after=sums.number.handle("never")).submit(1)
            after_it = await sums.add.submit(parked.as_input)
            assert await parked.status() == "pending"
            assert await parked.cancel()
            assert [await parked.status(), await after_it.status()] == ["cancelled", "failed"]
            assert not await parked.cancel()
        return
    waiting = await sums.number.submit(1)
    parked = await sums.add.options(id="parked").submit(waiting.as_input)
    after_it = await sums.add.options(id="after it").submit(parked.as_input)
    last = await sums.add.submit(after_it.as_input)
    lasting = await sums.add.submit(sums.number.handle("never").as_input)
    assert await parked.cancel()
    assert [await handle.status() for handle in (waiting, parked, after_it, last)] == [
        *("pending", "cancelled", "failed", "failed"),
    ]
    # A later step with the id of an earlier one is another: the edge that the earlier one has left is not its own.
    await parked.forget()
    parked = await sums.add.options(id="parked").submit((await sums.number.options(id="later").submit(5)).as_input)
    assert await waiting.cancel()
    assert await queue.redis.hlen(queue.keys.flow) == 2
    assert await lasting.cancel()
    async with tasks.worker():
        assert await parked.result(PATIENCE) == 6
    other = await sums.number.submit(1)
    step = await sums.add.submit(other.as_input)
    assert await other.cancel()
    with pytest.raises(TaskError, match=f"not run: the task {other.id} failed: cancelled"):
        await step.result(PATIENCE)
    assert await is_clean(queue)


async def test_status_doctor_and_purge_know_parked_steps(
    tasks: TaskQueue, queue: Queue, server: EmbeddedServer
) -> None:
    sums = Sums(tasks)
    first = await sums.number.submit(1)
    step = await sums.add.options(id="step").submit(first.as_input)
    await sums.add.submit(step.as_input)

    async def finding() -> Any:
        findings = (await examine(server.url, [tasks.name])).findings
        return next(found for found in findings if found.subject.endswith(": flows"))

    async with StatusReader(server.url, [tasks.name]) as reader:
        assert (await reader.read()).queues[0].parked == 2
        assert (await finding()).level == "good"
        await queue.redis.delete(queue.keys.waiting)  # a task that is removed without an answer
        assert (await finding()).level == "warning"
        await sums.number.submit(2)
        async with QueueControl(server.url, tasks.name) as control:
            assert await control.purge() == 3
        assert (await reader.read()).queues[0].parked == 0
    assert await is_clean(queue)


async def test_what_cannot_be_waited_for(tasks: TaskQueue, server: EmbeddedServer) -> None:
    sums = Sums(tasks)
    other = TaskQueue(server.url, "other")

    @other.task
    def there() -> int:
        return 1

    one: Handle[int] = there.handle(1)
    for wrong, text in (
        (sums.add.call(one.as_input), "the task 1 is of the queue other: a task waits for tasks of its own queue"),
        (sums.add.options(after=one).call(1), "the task 1 is of the queue other"),
        (sums.add.options(id=7).call(sums.add.handle(7).as_input), "the task 7 would wait for itself"),
        (sums.add.options(delay=1).call(sums.add.handle(7).as_input), "leave out delay and at"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            await tasks.submit_many([wrong])
    with pytest.raises(ConfigurationError, match="a flow has calls of one queue; this has"):
        await chain(there.call(), sums.add).submit()
    with pytest.raises(ConfigurationError, match="a flow has calls of one queue; this has none"):
        await group().submit()
    with pytest.raises(ConfigurationError, match="add is unique by its arguments"):
        await chain(there.call(), sums.add.options(unique=True)).submit()
    with pytest.raises(ConfigurationError, match="on_failure must be"):
        sums.add.options(on_failure="wait")  # type: ignore[arg-type]


async def test_data_that_looks_like_an_input_is_none(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task
    async def echo(value: Any, other: Any = None) -> Any:
        return value

    secret = await echo.submit("secret")
    like_one = {"$result": f"{'0' * 16}:{tasks.name.encode().hex()}:{secret.id.encode().hex()}"}
    async with tasks.worker():
        assert await (await echo.submit(like_one)).result(PATIENCE) == like_one
        assert await (await echo.submit(like_one, secret.as_input)).result(PATIENCE) == like_one
    with pytest.raises(TypeError):
        from redis_worker.functions.values import result_of

        result_of(secret)


async def test_no_order_of_answers_and_submissions_loses_a_step(tasks: TaskQueue, queue: Queue) -> None:
    """Steps are submitted while what they wait for is answered, by workers that did not know of any flow."""
    sums = Sums(tasks)
    chance = random.Random(7)
    handles: list[Handle[int]] = []
    expected: list[int] = []

    async def submit(first: int) -> None:
        mine = [sums.number.handle(first)]
        values = [first]
        await sums.number.options(id=first).submit(first)
        for _ in range(20):
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.004)
            chosen = [chance.randrange(len(mine)) for _ in range(chance.randint(1, 3))]
            mine.append(await sums.total.submit([mine[n].as_input for n in chosen]))
            values.append(sum(values[n] for n in chosen))
        handles.extend(mine)
        expected.extend(values)

    async with tasks.worker(), tasks.worker():
        await asyncio.gather(*map(submit, range(12)))
        assert [await handle.result(PATIENCE) for handle in handles] == expected
    assert await is_clean(queue)


@pytest.mark.parametrize(("steps", "kills"), [(120, 1), pytest.param(10_000, 8, marks=pytest.mark.long)])
async def test_a_flow_survives_kills_of_workers(
    start: Start, tasks: TaskQueue, queue: Queue, steps: int, kills: int
) -> None:
    """A third each: a chain, a wide group, and chains in a group; and what waits for all."""
    from tests.functions import shop

    functions = TaskQueue(tasks.redis, tasks.name, results=tasks.results)
    add, merge = functions.task(shop.add.__wrapped__), functions.task(shop.merge.__wrapped__)
    third = steps // 3
    workers = [
        start("run", "tests.functions.shop:queue", "-c", "16", "--lease", "2", "--max-deliveries", "100")
        for _ in range(2)
    ]
    long = chain(add.call(0), *[add] * (third - 1))  # type: ignore[call-overload]
    wide = group(*(add.call(number) for number in range(third)))
    chains = group(*(chain(add.call(0), *[add] * 9) for _ in range(third // 10)))  # type: ignore[call-overload]
    ends = [await long.submit(), await chain(wide, merge).submit(), await chain(chains, merge).submit()]
    killed = 0
    while await queue.redis.hlen(queue.keys.flow):
        count = await queue.redis.hlen(queue.keys.output)
        await wait_until(lambda least=count + steps // (2 * kills): _goes_on(queue, least))
        if killed < kills:
            workers.pop(0).kill()
            workers.append(
                start("run", "tests.functions.shop:queue", "-c", "16", "--lease", "2", "--max-deliveries", "100")
            )
            killed += 1
    assert killed
    expected = [third, third * (third + 1) // 2, third // 10 * 10]
    assert [await handle.result(PATIENCE) for handle in ends] == expected
    await wait_until(lambda: queue.answered(third + third + 1 + third // 10 * 10 + 1))
    ledger = await queue.ledger()
    assert len(ledger) == 2 * third + 2 + third // 10 * 10
    assert set(ledger.values()) == {1}
    assert {result["status"] for result in (await queue.results()).values()} == {"success"}
    assert await is_clean(queue)
    await functions.close()
    await end(*workers)
    async for key in queue.redis.scan_iter(f"{queue.keys.stem}:*"):
        await queue.redis.delete(key)  # the lease of an idle worker that was killed lasts an hour


async def _goes_on(queue: Queue, least: int) -> bool:
    return await queue.answered(least) or not await queue.redis.hlen(queue.keys.flow)
