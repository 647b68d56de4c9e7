"""Programs of users who make a client once, for the whole program: run by test_shared_clients.py, each in a process."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from redis.asyncio import Redis

from redis_worker import (
    ConfigurationError,
    Disconnected,
    Publisher,
    Supervisor,
    SyncPublisher,
    SyncTaskClient,
    TaskClient,
    TopicWorker,
    WorkerPool,
)
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.queue.delayed import new_token
from redis_worker.broker.queue.lease import worker_name

URL, INPUT, OUTPUT, TOPIC = sys.argv[2:6] if len(sys.argv) > 5 else ("",) * 4
# There is a result for each id up to here, with the id as its value.
RESULTS = 300
PATIENCE = 60.0


def child(work: Callable[[], object], *, as_a_program: bool = False) -> int:
    """Fork; the child does `work`, and ends at once, or as a program ends."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        work()
        gc.collect()
        code = 0
    except BaseException:
        traceback.print_exc()
    if as_a_program:
        sys.exit(code)
    os._exit(code)


def ended_well(*pids: int) -> None:
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * len(pids), codes


@contextmanager
def refused(error: type[Exception], text: str) -> Iterator[None]:
    said = "nothing"
    try:
        yield
    except error as raised:
        said = str(raised)
    assert text in said, f"{said!r} was raised, {error.__name__} with {text!r} was to be"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def read(client: SyncTaskClient) -> None:
    for number in range(RESULTS):
        assert client.result(number, PATIENCE) == number


async def read_async(client: TaskClient) -> None:
    for number in range(RESULTS):
        assert await client.result(number, PATIENCE) == number


def forks_of_a_program_without_a_loop() -> None:
    client, publisher = SyncTaskClient(URL, INPUT, OUTPUT), SyncPublisher(URL)

    def use() -> None:
        read(client)
        publisher.publish(TOPIC, os.getpid())

    def use_and_close() -> None:
        use()
        with refused(ConfigurationError, "another process"):
            next(begun)
        client.close()
        with refused(ConfigurationError, "closed"):
            client.submit(1)

    use()
    begun = client.results([1, 2], PATIENCE)
    next(begun)
    children = [child(use), child(use, as_a_program=True), child(use_and_close), child(use_and_close)]
    use()
    ended_well(*children)
    use()
    assert len([*begun]) == 1
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=use) for _ in range(2)]
    for process in processes:
        process.start()
    use()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert client.submit(1)


def forks_of_a_program_that_has_not_used_its_client_yet() -> None:
    client = SyncTaskClient(URL, INPUT, OUTPUT)
    assert threading.active_count() == 1
    ended_well(*[child(lambda: read(client)) for _ in range(4)])
    read(client)


def forks_in_a_running_loop() -> None:
    client, publisher = TaskClient(URL, INPUT, OUTPUT), Publisher(URL)

    async def use() -> None:
        await read_async(client)
        await publisher.publish(TOPIC, os.getpid())

    def use_and_close() -> None:
        asyncio.run(use())
        asyncio.run(use())
        asyncio.run(client.close())

    async def main() -> None:
        await use()
        children = [child(use_and_close) for _ in range(3)]
        await use()
        await asyncio.to_thread(ended_well, *children)
        await use()

    asyncio.run(main())
    asyncio.run(use())


def forks_with_a_client_of_the_callers() -> None:
    given = Redis.from_url(URL)
    client = TaskClient(given, INPUT, OUTPUT)

    async def main() -> None:
        await read_async(client)
        children = [child(lambda: asyncio.run(read_async(client))) for _ in range(3)]
        await read_async(client)
        await asyncio.to_thread(ended_well, *children)
        await given.aclose()

    asyncio.run(main())
    asyncio.run(read_async(client))  # its loop is gone


def forks_while_a_pool_runs() -> None:
    """What a processor starts by a fork can neither use nor disturb the pool's connections."""
    connections: list[Connection] = []

    def processor(arguments: list[object]) -> bool:
        def work() -> None:
            with refused(ConfigurationError, "runs once"):
                asyncio.run(pool.run())
            for connection in connections:
                with refused(ConfigurationError, "parent of this process"):
                    asyncio.run(connection.call("PING"))
            with SyncTaskClient(URL, INPUT, OUTPUT) as client:
                assert client.result(7, PATIENCE) == 7

        ended_well(child(work))
        return True

    pool = WorkerPool(URL, INPUT, OUTPUT, lambda task: [task], processor, lease=2)

    async def main() -> None:
        connection = Connection(pool._address.open(), owned=True, lasting=True)
        connections.append(connection)
        await connection.call("PING")
        async with pool, TaskClient(URL, INPUT, OUTPUT) as client:
            for number in range(5):
                assert await client.run(number, PATIENCE) is True
                assert await connection.call("PING") in (b"PONG", "PONG")
            await asyncio.sleep(3)  # longer than the lease, which the keeper's thread renews
        assert pool.counters.redelivered == pool.counters.reconnects == 0
        await connection.close()

    asyncio.run(main())


def workers_made_before_a_fork() -> None:
    given = Redis.from_url(URL)
    pool = WorkerPool(URL, INPUT, OUTPUT, "list", "sum", burst=True)
    guest = WorkerPool(given, INPUT, OUTPUT, "list", "sum", burst=True)
    topics = TopicWorker(URL)
    topics.handler(TOPIC)(print)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(
            f'[redis]\nurl = "{URL}"\n'
            f'[pools.one]\ninput = "{INPUT}"\noutput = "{OUTPUT}"\nparser = "list"\nprocessor = "sum"\n'
        )
        file.flush()
        supervisor = Supervisor.from_file(file.name)

    async def briefly(work: TopicWorker | Supervisor) -> None:
        async with work:
            await asyncio.sleep(1)

    async def main() -> None:
        await given.ping()
        jobs = [pool.run, guest.run, lambda: briefly(topics), lambda: briefly(supervisor)]
        ended_well(*[child(lambda job=job: asyncio.run(job())) for job in jobs for _ in range(2)])  # type: ignore[misc]
        await given.aclose()

    asyncio.run(main())


def names_after_a_fork() -> None:
    reading, writing = os.pipe()
    new_token()
    time.time_ns = lambda: 1  # at the same moment
    children = [child(lambda: os.write(writing, f"{new_token()} {worker_name()}\n".encode())) for _ in range(4)]
    ended_well(*children)
    os.write(writing, f"{new_token()} {worker_name()}\n".encode())
    names = os.read(reading, 65536).split()
    assert len(names) == len(set(names)) == 10, names


def threads_that_share_a_client() -> None:
    client, publisher = SyncTaskClient(URL, INPUT, OUTPUT), SyncPublisher(URL)  # the latter is never closed

    def use(thread: int) -> None:
        for number in range(RESULTS):
            assert client.result(number, PATIENCE) == number
            assert client.submit([number], id=f"{thread}-{number}")
            publisher.publish(TOPIC, number)
        ids = client.submit_many(([n] for n in range(700)), delay=600)
        assert len(set(ids)) == 700
        assert client.cancel(ids[0])

    with ThreadPoolExecutor(4) as threads:
        waiting = threads.submit(client.result, "never")
        list(threads.map(use, range(3)))
        threads.submit(client.close).result()
        with refused(Disconnected, "closed"):
            waiting.result()
    with refused(ConfigurationError, "closed"):
        client.submit(1)
    client.close()


def a_client_that_is_forgotten() -> None:
    """Neither a thread nor a connection stays, and nothing is said of it."""
    before = descriptors()
    for _ in range(3):
        SyncTaskClient(URL, INPUT, OUTPUT).result(1, PATIENCE)
        SyncPublisher(URL).publish(TOPIC, 1)
        begun = SyncTaskClient(URL, INPUT, OUTPUT).results([1, "never"], 0.1)
        assert next(begun).value == 1
        with refused(TimeoutError, "never"):
            next(begun)
    del begun
    gc.collect()
    assert threading.active_count() == 1
    cycle: list[object] = [SyncTaskClient(URL, INPUT, OUTPUT)]
    cycle.append(cycle)
    read(cycle[0])  # type: ignore[arg-type]
    del cycle
    gc.collect()
    assert threading.active_count() == 1
    assert descriptors() == before
    global kept
    kept = SyncTaskClient(URL, INPUT, OUTPUT)  # until the interpreter ends
    kept.result(1, PATIENCE)


def one_client_and_several_loops() -> None:
    client, publisher = TaskClient(URL, INPUT, OUTPUT), Publisher(URL)

    async def use() -> None:
        await asyncio.gather(read_async(client), read_async(client), publisher.publish(TOPIC, 1))

    asyncio.run(use())
    before = descriptors()
    for _ in range(5):
        asyncio.run(use())
    assert descriptors() == before
    with ThreadPoolExecutor(4) as threads:  # as asgiref does it: a loop for each call, in whichever thread
        list(threads.map(lambda _: asyncio.run(use()), range(8)))
    assert descriptors() == before

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        loop.close()  # without shutdown_asyncgens
    asyncio.run(use())
    gc.collect()
    assert descriptors() == before
    asyncio.run(client.close())

    async def forgotten() -> None:
        during = descriptors()
        for _ in range(3):
            await TaskClient(URL, INPUT, OUTPUT).result(1, PATIENCE)
            gc.collect()
        end = time.monotonic() + PATIENCE
        while descriptors() > during:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

    asyncio.run(forgotten())
    gc.collect()
    assert descriptors() == before


if __name__ == "__main__":
    globals()[sys.argv[1]]()
