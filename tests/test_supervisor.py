"""The supervisor inside a program: parts that fail, restart, block, stop and change, without harm to each other."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redis_worker import ConfigurationError, PartFailed, PartStatus, Supervisor
from redis_worker.broker.operator.status import StatusReader
from redis_worker.embedded import EmbeddedServer
from tests.parts import marks
from tests.support import Queue, wait_until
from tests.test_http import get


class File:
    """A file of a supervisor, and the marks that its parts leave."""

    def __init__(self, folder: Path, url: str) -> None:
        self.path = folder / "workers.toml"
        self.marks = folder / "marks"
        self._url = url

    def write(self, *parts: str) -> None:
        self.path.write_text("\n".join([f"[redis]\nurl = {json.dumps(self._url)}", *parts]))

    def daemon(self, name: str, run: str, more: str = "", **arguments: Any) -> str:
        said = {"marks": str(self.marks), **arguments}
        inline = ", ".join(f"{key} = {json.dumps(value)}" for key, value in said.items())
        return f'[daemons.{name}]\nrun = "tests.parts:{run}"\narguments = {{ {inline} }}\n{more}\n'

    def pool(self, queue: Queue, processor: str = "sum", more: str = "", name: str = "adding") -> str:
        keys = queue.keys
        return (
            f'[pools.{name}]\ninput = "{keys.waiting}"\noutput = "{keys.output}"\nprocessor = "{processor}"\n{more}\n'
        )

    def supervisor(self, *parts: str, **options: Any) -> Supervisor:
        self.write(*parts)
        return Supervisor.from_file(self.path, **options)

    def left(self) -> list[str]:
        """The marks, without the ids of processes."""
        return [":".join(mark.split(":")[:2]) for mark in marks(self.marks)]


@pytest.fixture
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def file(tmp_path: Path, server: EmbeddedServer) -> File:
    return File(tmp_path, server.url)


def status(supervisor: Supervisor, name: str) -> PartStatus:
    return next(part for part in supervisor.parts() if part.name == name)


async def until_state(supervisor: Supervisor, name: str, state: str) -> PartStatus:
    await wait_until(lambda: status(supervisor, name).state == state, f"{name} to be {state}")
    return status(supervisor, name)


AT_ONCE = "restart_backoff = 0.01\nrestart_backoff_max = 0.02"


async def test_a_daemon_that_fails_all_the_time_costs_the_pool_beside_it_nothing(file: File, queue: Queue) -> None:
    every_second = "restart_backoff = 1\nrestart_backoff_max = 1\nmax_restarts = 1000"
    failing = file.daemon("consumer", "fails", every_second)
    async with file.supervisor(file.pool(queue, "tests.processors:sleep", "concurrency = 16"), failing) as supervisor:
        await queue.push_tasks([0.005, number] for number in range(10_000))
        await wait_until(lambda: queue.answered(10_000), "all to be answered")
        assert status(supervisor, "consumer").restarts >= 2
    results = await queue.results()
    assert sorted(int(id) for id in results) == list(range(10_000))
    assert all(results[str(number)]["result"] == number for number in range(10_000))
    assert set((await queue.ledger()).values()) == {1}


@pytest.mark.parametrize("function", ["fails", "fails_in_thread", "exits"])
async def test_what_keeps_failing_is_given_up_and_the_rest_goes_on(
    file: File, queue: Queue, function: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = file.daemon("consumer", function, f"max_restarts = 3\n{AT_ONCE}")
    http = '[http]\nport = 0\nhost = "127.0.0.1"'
    async with file.supervisor(failing, file.pool(queue), http) as supervisor:
        given_up = await until_state(supervisor, "consumer", "failed")
        assert given_up.restarts == 3
        assert given_up.error is not None
        assert file.left().count(f"begin:{function.removesuffix('_in_thread')}") == 4
        assert status(supervisor, "adding").state == "running"
        assert not supervisor.ready
        assert supervisor.http_address
        ready = await get(supervisor.http_address, "/ready")
        assert ready.status == 503
        assert ready.json["parts"]["consumer"]["state"] == "failed"
        assert "consumer" in ready.json["reason"]
        async with StatusReader(queue.redis) as reader:

            async def seen() -> bool:
                mine = [each for each in (await reader.read()).supervisors if each.pid == os.getpid()]
                parts = [part for each in mine for part in each.parts]
                return {part.name: part.state for part in parts} == {"consumer": "failed", "adding": "running"}

            await wait_until(seen, "the status to show it")
        await queue.push_tasks([[1, 2]])
        await wait_until(lambda: queue.answered(1), "the pool to go on")
    said = [record for record in caplog.records if getattr(record, "part", None) == "consumer"]
    assert [record for record in said if "consumer failed: " in record.getMessage()]
    assert any("giving up" in record.getMessage() for record in said)


async def test_what_failed_once_is_started_again(file: File) -> None:
    async with file.supervisor(file.daemon("consumer", "fails_once", AT_ONCE)) as supervisor:
        await wait_until(lambda: file.left() == ["begin:fails_once"] * 2, "the second life")
        again = await until_state(supervisor, "consumer", "running")
        assert again.restarts == 1
        assert again.error == "RuntimeError: not yet"


async def test_failures_long_ago_are_not_held_against_a_part(file: File) -> None:
    """It is allowed one restart in a short time, and gets five in a longer one."""
    seldom = "max_restarts = 1\nrestart_window = 0.02\nrestart_backoff = 0.1\nrestart_backoff_max = 0.1"
    async with file.supervisor(file.daemon("consumer", "fails", seldom)) as supervisor:
        await wait_until(lambda: status(supervisor, "consumer").restarts >= 5, "it to be started again and again")


@pytest.mark.parametrize(
    ("function", "restart", "lives", "state"),
    [
        ("returns", "always", 3, None),
        ("returns", "on-failure", 1, "ended"),
        ("returns", "never", 1, "ended"),
        ("fails", "on-failure", 3, None),
        ("fails", "never", 1, "failed"),
    ],
)
async def test_it_is_started_again_as_the_file_says(
    file: File, function: str, restart: str, lives: int, state: str | None
) -> None:
    parts = [
        file.daemon("consumer", function, f'restart = "{restart}"\nmax_restarts = 1000\n{AT_ONCE}'),
        '[daemons.beside]\nrun = "tests.parts:speaks"',
    ]
    async with file.supervisor(*parts) as supervisor:
        await wait_until(lambda: len(file.left()) >= lives, "its lives")
        if state is not None:
            await until_state(supervisor, "consumer", state)
            assert len(file.left()) == lives


async def test_a_critical_part_that_is_given_up_ends_all(file: File, queue: Queue) -> None:
    critical = file.daemon("consumer", "fails", f"critical = true\nmax_restarts = 1\n{AT_ONCE}", after=0.2)
    supervisor = file.supervisor(file.pool(queue), critical)
    with pytest.raises(PartFailed, match=r"the critical part consumer has failed \(RuntimeError: no table\)"):
        await supervisor.run()
    assert await queue.redis.zcard(queue.keys.workers) == 0


async def test_a_critical_part_that_cannot_start_stops_its_host_and_no_other_does(file: File) -> None:
    missing = '[daemons.other]\nrun = "tests.no_such_module:run"'
    beside = file.daemon("beside", "steady")
    async with file.supervisor(missing, beside) as supervisor:
        assert status(supervisor, "other").state == "failed"
        assert "no module named 'tests.no_such_module'" in (status(supervisor, "other").error or "")
        assert status(supervisor, "beside").state == "running"
    with pytest.raises(PartFailed, match="the critical part other"):
        await file.supervisor(beside, f"{missing}\ncritical = true").start()
    assert file.left().count("begin:daemon") == file.left().count("end:daemon") == 2


async def test_what_blocks_the_event_loop_is_named(file: File, caplog: pytest.LogCaptureFixture) -> None:
    blocker = '[daemons.blocker]\nrun = "tests.parts:blocks"\narguments = { seconds = 1.6 }'
    async with file.supervisor(file.daemon("beside", "steady"), blocker):
        await wait_until(lambda: "the part blocker has blocked the event loop" in caplog.text, "the report")
    [record] = [record for record in caplog.records if "has blocked the event loop" in record.getMessage()]
    assert "time.sleep(seconds)" in record.getMessage()
    assert record.part == "blocker"  # type: ignore[attr-defined]


async def test_parts_begin_in_the_order_of_the_file_and_end_in_reverse(file: File) -> None:
    names = ["one", "two", "three"]
    parts = [file.daemon(name, "steady", label=name) for name in names]  # a thread may be slow to begin
    async with file.supervisor(*parts):
        await wait_until(lambda: len(file.left()) == 3, "all to begin")
    assert file.left() == [*(f"begin:{name}" for name in names), *(f"end:{name}" for name in reversed(names))]


async def test_a_stop_ends_in_time_whatever_a_part_does(file: File, caplog: pytest.LogCaptureFixture) -> None:
    parts = [
        "[worker]\nshutdown_timeout = 60",
        file.daemon("polite", "steady", label="polite"),
        *(file.daemon(f"stubborn{number}", "stubborn", "shutdown_timeout = 0.6") for number in range(4)),
        file.daemon("deaf", "deaf", "shutdown_timeout = 0.1"),
    ]
    supervisor = file.supervisor(*parts)
    await supervisor.start()
    await wait_until(lambda: len(file.left()) == 6, "all to begin")
    await supervisor.stop()
    assert file.left().count("cancelled:stubborn") == 4
    assert file.left().count("end:polite") == 1
    assert "the thread of deaf does not end: abandoning it" in caplog.text


async def test_a_cancelled_run_ends_all_at_once(file: File) -> None:
    supervisor = file.supervisor(file.daemon("stubborn", "stubborn"))
    running = asyncio.create_task(supervisor.run())
    await wait_until(lambda: file.left() == ["begin:stubborn"], "it to begin")
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert file.left() == ["begin:stubborn", "cancelled:stubborn"]


@asynccontextmanager
async def in_processes(file: File, queue: Queue, number: int) -> AsyncIterator[tuple[Supervisor, list[int]]]:
    """A pool in processes of its own, and their ids."""
    http = '[http]\nport = 0\nhost = "127.0.0.1"'
    more = f"processes = {number}\nlease = 2\n{AT_ONCE}"
    async with file.supervisor(file.pool(queue, "tests.processors:gate", more), http) as supervisor:
        await wait_until(lambda: queue.redis.zcard(queue.keys.workers), "the processes")

        async def all_there() -> list[int]:
            names = await queue.redis.zrange(queue.keys.workers, 0, -1)
            pids = {int(name.decode().split("-")[-2]) for name in names}
            return sorted(pids) if len(pids) == number else []

        yield supervisor, await wait_until(all_there, "all processes")


async def test_a_part_runs_in_processes_of_its_own(file: File, queue: Queue, tmp_path: Path) -> None:
    async with in_processes(file, queue, 2) as (supervisor, pids):
        assert os.getpid() not in pids
        assert status(supervisor, "adding").processes == 2
        await wait_until(lambda: len(supervisor.consuming()) == 2, "their reports")
        (tmp_path / "open").touch()
        await queue.push_tasks([[str(tmp_path)]] * 100)
        await wait_until(lambda: queue.answered(100), "the results")
        assert {result["result"] for result in (await queue.results()).values()} <= set(pids)
        await wait_until(lambda: supervisor.counters.processed == 100, "their counts")
        assert supervisor.http_address
        metrics = (await get(supervisor.http_address, "/metrics")).body
        [line] = [line for line in metrics.splitlines() if "tasks_total{" in line and 'outcome="success"' in line]
        assert 'part="adding"' in line
        assert line.endswith(" 100.0")
    assert await queue.redis.zcard(queue.keys.workers) == 0


async def test_a_process_that_dies_is_replaced_and_nothing_is_lost(file: File, queue: Queue, tmp_path: Path) -> None:
    async with in_processes(file, queue, 2) as (supervisor, pids):
        await queue.push_tasks([[str(tmp_path)]] * 6)
        await wait_until(lambda: len(marks(tmp_path / "running")) == 6, "all to run")
        os.kill(pids[0], signal.SIGKILL)
        again = await wait_until(
            lambda: status(supervisor, "adding").restarts == 1 and status(supervisor, "adding"), "another process"
        )
        assert f"its process {pids[0]} has died (killed by SIGKILL)" == again.error
        (tmp_path / "open").touch()
        await wait_until(lambda: queue.answered(6), "the results")
        await until_state(supervisor, "adding", "running")
        await wait_until(lambda: queue.buried(2), "the dead one to be noticed")
    assert set((await queue.ledger()).values()) == {1}


async def test_a_process_that_hangs_is_replaced(file: File) -> None:
    hanging = file.daemon("consumer", "hangs_at_first", f"processes = 1\nhang_timeout = 1\n{AT_ONCE}")
    async with file.supervisor(hanging) as supervisor:
        await wait_until(lambda: len(marks(file.marks)) == 2, "another process")
        again = await until_state(supervisor, "consumer", "running")
        first, second = (int(mark.split(":")[2]) for mark in marks(file.marks))
        assert first != second
        assert again.error == f"its process {first} has not answered for 1 s and was killed"
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)


async def test_what_is_logged_in_a_process_of_its_own_is_logged_here(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    speaking = '[daemons.speaking]\nrun = "tests.parts:speaks"\nprocesses = 1'
    failing = file.daemon("failing", "fails", f"processes = 1\nmax_restarts = 0\n{AT_ONCE}")
    async with file.supervisor(speaking, failing) as supervisor:
        await wait_until(lambda: "the shop is open" in caplog.text, "the record")
        await until_state(supervisor, "failing", "failed")
    [record] = [record for record in caplog.records if record.getMessage() == "the shop is open"]
    assert record.name == "shop"
    assert record.levelno == logging.WARNING
    assert record.part == "speaking#1"  # type: ignore[attr-defined]
    assert 'raise RuntimeError("no table")' in caplog.text


async def test_what_did_not_change_keeps_running_over_a_reload(file: File) -> None:
    same, changed, gone = (file.daemon(name, "steady", label=name) for name in ("same", "changed", "gone"))
    async with file.supervisor(same, changed, gone) as supervisor:
        await wait_until(lambda: len(file.left()) == 3, "all to begin")
        file.write(file.daemon("new", "steady", label="new"), file.daemon("changed", "steady", label="renamed"), same)
        assert await supervisor.reload()
        await wait_until(lambda: len(file.left()) == 7, "the changes")
        assert sorted(file.left()[3:5]) == ["end:changed", "end:gone"]
        assert file.left()[5:] == ["begin:new", "begin:renamed"]
        assert [part.name for part in supervisor.parts()] == ["new", "changed", "same"]
    assert file.left()[7:] == ["end:same", "end:renamed", "end:new"]


async def test_a_file_with_a_mistake_is_refused_and_the_old_one_goes_on(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    same = file.daemon("same", "steady")
    async with file.supervisor(same) as supervisor:
        await wait_until(lambda: len(file.left()) == 1, "it to begin")
        for wrong in ("[daemons.other]\nrum = 'x:y'", '[daemons.other]\nrun = "tests.parts:nothing"', "[daemons"):
            file.write(same.replace("steady", "fails"), wrong)
            assert not await supervisor.reload()
        assert file.left() == ["begin:daemon"]
        assert supervisor.ready
    assert "unknown key, did you mean run?" in caplog.text
    assert "has no function 'nothing'" in caplog.text
    assert "is refused: what was running goes on" in caplog.text


async def test_what_failed_begins_anew_with_a_reload(file: File) -> None:
    async with file.supervisor(file.daemon("consumer", "fails", 'restart = "never"')) as supervisor:
        await until_state(supervisor, "consumer", "failed")
        assert await supervisor.reload()
        await wait_until(lambda: len(file.left()) == 2, "another life")


async def test_a_reload_under_load_loses_nothing_and_leaves_others_alone(file: File, queue: Queue) -> None:
    steady = file.daemon("same", "steady")
    async with file.supervisor(file.pool(queue, "tests.processors:sleep"), steady) as supervisor:
        await queue.push_tasks([0.002, number] for number in range(4000))
        for concurrency in (2, 20, 3, 30, 40):
            before = await queue.redis.hlen(queue.keys.output)
            await wait_until(lambda: queue.answered(min(before + 100, 4000)), "some results")  # noqa: B023
            file.write(file.pool(queue, "tests.processors:sleep", f"concurrency = {concurrency}"), steady)
            assert await supervisor.reload()
        await wait_until(lambda: queue.answered(4000), "all results")
        assert file.left() == ["begin:daemon"]
    assert {id: result["result"] for id, result in (await queue.results()).items()} == {
        str(number): number for number in range(4000)
    }
    assert set((await queue.ledger()).values()) == {1}
    assert len(await queue.redis.hgetall(queue.keys.attempts)) == 0


async def test_a_host_keeps_its_signals_and_its_logging(file: File, queue: Queue) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers], logging.getLogger().handlers[:]
    async with file.supervisor(file.pool(queue), file.daemon("consumer", "steady")):
        assert ([signal.getsignal(number) for number in numbers], logging.getLogger().handlers[:]) == before
    assert ([signal.getsignal(number) for number in numbers], logging.getLogger().handlers[:]) == before


@pytest.mark.parametrize(
    ("said", "because"),
    [('mode = "standalone"', 'worker.mode is "standalone"'), ("enable = false", "worker.enable is false")],
)
async def test_a_file_that_is_not_for_a_host_does_nothing_there_and_says_so(
    file: File, said: str, because: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with file.supervisor(f"[worker]\n{said}", file.daemon("consumer", "steady")) as supervisor:
        assert supervisor.parts() == []
        assert file.left() == []
    assert because in caplog.text


async def test_a_mistake_in_the_file_is_an_error_at_once(file: File) -> None:
    with pytest.raises(ConfigurationError, match=r"workers\.toml:3: daemons\.consumer: "):
        file.supervisor("[daemons.consumer]")


async def test_without_redis_a_host_starts_and_parts_that_need_none_work(tmp_path: Path) -> None:
    file = File(tmp_path, "redis://127.0.0.1:1")
    pool = '[pools.adding]\ninput = "in"\noutput = "out"\nprocessor = "sum"\nconnect_timeout = 1'
    async with file.supervisor(file.daemon("consumer", "steady"), pool) as supervisor:
        assert file.left() == ["begin:daemon"]
        assert status(supervisor, "adding").state in ("waiting for Redis", "restarting")
        assert status(supervisor, "consumer").state == "running"
    assert file.left() == ["begin:daemon", "end:daemon"]


async def test_a_server_that_is_not_there_is_not_held_against_a_part(tmp_path: Path) -> None:
    """It is allowed one restart, and gets more while there is no server."""
    file = File(tmp_path, "redis://127.0.0.1:1")
    more = f"connect_timeout = 0.01\nmax_restarts = 1\n{AT_ONCE}"
    pool = f'[pools.adding]\ninput = "in"\noutput = "out"\nprocessor = "sum"\n{more}'
    async with file.supervisor(pool) as supervisor:
        await wait_until(lambda: status(supervisor, "adding").restarts > 3, "it to try again")


async def test_what_trying_again_cannot_mend_is_given_up_at_once(file: File, queue: Queue) -> None:
    await queue.redis.set(queue.keys.waiting, "no list")
    async with file.supervisor(file.pool(queue)) as supervisor:
        given_up = await until_state(supervisor, "adding", "failed")
        assert given_up.restarts == 0
        assert "WRONGTYPE" in (given_up.error or "")


async def test_a_cron_job_of_the_file_runs(file: File) -> None:
    job = f'[cron.tick]\nschedule = "* * * * * *"\njob = "tests.parts:tick"\narguments = {{ marks = "{file.marks}" }}'
    async with file.supervisor(job) as supervisor:
        assert status(supervisor, "tick").kind == "cron job"
        await wait_until(lambda: len(file.left()) >= 2, "two firings")
