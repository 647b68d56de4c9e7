"""The supervisor at its edges: what parts, hosts and machines seldom do."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from redis_worker import ConfigurationError, PartFailed, TaskClient
from redis_worker.broker.operator.status import StatusReader
from redis_worker.embedded import EmbeddedServer
from tests.parts import marks
from tests.support import wait_until
from tests.test_servers import Cluster, cluster_nodes
from tests.test_supervisor import AT_ONCE, File, status, until_state


@pytest.fixture
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def file(tmp_path: Path, server: EmbeddedServer) -> File:
    return File(tmp_path, server.url)


@pytest.mark.parametrize("processes", ["", "processes = 1"])
@pytest.mark.parametrize("function", ["fails_oddly", "fails_oddly_in_thread", "interrupts_in_thread"])
async def test_whatever_a_daemon_raises_is_a_failure_of_it(file: File, function: str, processes: str) -> None:
    failing = file.daemon("consumer", function, f"max_restarts = 1\n{AT_ONCE}\n{processes}")
    async with file.supervisor(failing, file.daemon("beside", "steady")) as supervisor:
        given_up = await until_state(supervisor, "consumer", "failed")
        assert given_up.restarts == 1
        assert given_up.error is not None
        assert file.left().count("begin:fails") == 2
        assert status(supervisor, "beside").state == "running"


async def test_a_process_that_dies_is_replaced_though_one_of_its_own_lives_on(file: File) -> None:
    async with file.supervisor(
        file.daemon("consumer", "dies_and_leaves", "processes = 1\nmax_restarts = 0")
    ) as supervisor:
        try:
            given_up = await until_state(supervisor, "consumer", "failed")
        finally:
            for mark in marks(file.marks):
                os.kill(int(mark.partition(":")[2]), signal.SIGKILL)
        assert "has died (exit code 3)" in (given_up.error or "")


@pytest.mark.parametrize("value", ["2026-01-02", "inf", "nan", "[{ at = 07:30:00 }]"])
async def test_what_a_process_of_its_own_cannot_be_told_is_a_mistake_in_the_file(file: File, value: str) -> None:
    daemon = f'[daemons.consumer]\nrun = "tests.parts:steady"\narguments = {{ marks = "here", label = {value} }}'
    file.supervisor(daemon)
    with pytest.raises(
        ConfigurationError, match=r"workers\.toml:5: daemons\.consumer\.arguments\.label: must be a JSON"
    ):
        file.supervisor(f"{daemon}\nprocesses = 1")


@pytest.mark.parametrize("timeout", [0.1, 1.0])
async def test_a_process_that_answers_is_not_taken_for_hung_however_short_its_time(file: File, timeout: float) -> None:
    more = f"processes = 1\nhang_timeout = {timeout}\nmax_restarts = 0"
    parts = [file.daemon("consumer", "steady", more), file.daemon("blocking", "blocks_again_and_again")]
    async with file.supervisor(*parts) as supervisor:
        await wait_until(lambda: marks(file.marks).count("blocked") >= 6, "some pings")
        assert status(supervisor, "consumer").state == "running"


async def test_a_hung_process_is_replaced_though_the_supervisor_is_often_late(file: File, tmp_path: Path) -> None:
    hanging = file.daemon("consumer", "hangs_at_first", f"processes = 1\nhang_timeout = 1\n{AT_ONCE}")
    blocking = file.daemon("blocking", "blocks_again_and_again", marks=str(tmp_path / "other"))
    async with file.supervisor(hanging, blocking) as supervisor:
        await wait_until(lambda: status(supervisor, "consumer").restarts == 1, "another process")
        assert "has not answered for 1 s" in (status(supervisor, "consumer").error or "")


async def test_what_cannot_be_logged_is_no_failure_of_a_process_of_its_own(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    async with file.supervisor(
        file.daemon("consumer", "speaks_badly", "processes = 1\nmax_restarts = 0")
    ) as supervisor:
        await wait_until(lambda: file.left() or status(supervisor, "consumer").state == "failed", "it to go on")
        await wait_until(lambda: "file \\udcff" in caplog.text, "what can be logged")
        assert status(supervisor, "consumer").state == "running"
    [record] = [record for record in caplog.records if record.name == "shop"]
    assert record.seconds == 0.5  # type: ignore[attr-defined]


async def test_a_reload_while_it_starts_begins_nothing_twice(file: File) -> None:
    supervisor = file.supervisor(file.daemon("consumer", "steady"), '[http]\nport = 0\nhost = "127.0.0.1"')
    with pytest.raises(ConfigurationError, match="has not started"):
        await supervisor.reload()
    starting = asyncio.create_task(supervisor.start())
    await asyncio.sleep(0)
    assert await supervisor.reload()
    await starting
    await wait_until(file.left, "it to begin")
    assert len(supervisor.parts()) == 1
    await supervisor.stop()
    assert file.left() == ["begin:daemon", "end:daemon"]
    assert not await supervisor.reload()


async def test_a_stop_while_it_starts_leaves_nothing_behind(file: File) -> None:
    http = '[http]\nport = 0\nhost = "127.0.0.1"'
    before = asyncio.all_tasks()
    for turns in range(12):
        supervisor = file.supervisor(file.daemon("consumer", "steady"), http)
        starting = asyncio.create_task(supervisor.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        await supervisor.stop()
        await asyncio.wait({starting})
        assert supervisor.http_address is None
        if starting.exception() is not None:
            assert turns == 0
            assert isinstance(starting.exception(), ConfigurationError)
        await wait_until(lambda: asyncio.all_tasks() <= before, "the tasks to end")
    assert file.left().count("begin:daemon") == file.left().count("end:daemon")


async def test_a_stop_that_is_cancelled_ends_all_at_once(file: File) -> None:
    before = asyncio.all_tasks()
    parts = [file.daemon(name, "stubborn") for name in ("one", "two", "three")]
    supervisor = file.supervisor(*parts, file.daemon("polite", "steady"))
    await supervisor.start()
    await wait_until(lambda: len(file.left()) == 4, "all to begin")
    stopping = asyncio.create_task(supervisor.stop())
    await wait_until(lambda: "end:daemon" in file.left(), "the stop to be under way")
    stopping.cancel()
    await asyncio.wait({stopping})
    assert stopping.cancelled()
    assert file.left().count("cancelled:stubborn") == 3
    assert {part.state for part in supervisor.parts()} == {"ended"}
    await supervisor.stop()
    await wait_until(lambda: asyncio.all_tasks() <= before, "the tasks to end")


async def test_a_reload_that_nobody_waits_for_any_more_is_done_nevertheless(file: File) -> None:
    async with file.supervisor(file.daemon("stubborn", "stubborn", "shutdown_timeout = 1")) as supervisor:
        await wait_until(file.left, "it to begin")
        file.write(file.daemon("stubborn", "steady"))
        reloading = asyncio.create_task(supervisor.reload())
        await until_state(supervisor, "stubborn", "stopping")
        reloading.cancel()
        await asyncio.wait({reloading})
        assert reloading.cancelled()
        await wait_until(lambda: "begin:daemon" in file.left(), "the change")
        assert (await until_state(supervisor, "stubborn", "running")).error is None


async def test_what_a_reload_has_begun_is_waited_for(file: File) -> None:
    async with file.supervisor(file.daemon("consumer", "returns", 'restart = "never"')) as supervisor:
        await supervisor.wait()
        file.write(file.daemon("consumer", "fails_once", 'restart = "never"'))
        file.marks.unlink()
        assert await supervisor.reload()
        with pytest.raises(PartFailed, match="nothing is left to run: consumer has failed"):
            await supervisor.wait()
        file.write(file.daemon("consumer", "steady"))
        assert await supervisor.reload()
        waiting = asyncio.create_task(supervisor.wait())
        await until_state(supervisor, "consumer", "running")
        assert not waiting.done()
    await waiting


async def test_a_path_that_imports_ignore_is_ignored_for_processes_too(
    file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [tmp_path, "", *sys.path])
    async with file.supervisor(file.daemon("consumer", "steady", 'processes = 1\nrestart = "never"')) as supervisor:
        assert status(supervisor, "consumer").state == "running"


@pytest.mark.parametrize("processes", ["", "processes = 1"])
async def test_a_part_whose_task_is_cancelled_from_outside_does_not_pretend_to_start(
    file: File, processes: str
) -> None:
    async with file.supervisor(file.daemon("consumer", "steady", processes)) as supervisor:
        await wait_until(file.left, "it to begin")
        for task in asyncio.all_tasks():
            if task.get_name().startswith("redis-worker part"):
                task.cancel()
        assert (await until_state(supervisor, "consumer", "failed")).error == "it was cancelled from outside"
        assert await supervisor.reload()
        await until_state(supervisor, "consumer", "running")


@pytest.mark.parametrize("former", [None, "/somewhere"])
async def test_what_a_process_of_its_own_starts_finds_the_environment_as_it_was(
    file: File, monkeypatch: pytest.MonkeyPatch, former: str | None
) -> None:
    if former is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", former)
    async with file.supervisor(file.daemon("consumer", "tells_environment", "processes = 1")):
        await wait_until(lambda: file.marks.exists() and file.marks.read_text(), "its word")
    assert file.marks.read_text() == f"{former}:[]\n"


async def test_all_of_it_works_in_a_cluster(server: EmbeddedServer, tmp_path: Path) -> None:
    with cluster_nodes(server.binary, 3) as nodes:
        url = Cluster(nodes).url
        file = File(tmp_path, url)
        keys = 'input = "{sums}:in"\noutput = "{sums}:out"'
        parts = [
            f'[pools.here]\n{keys}\nprocessor = "sum"',
            f'[pools.apart]\n{keys}\nprocessor = "sum"\nprocesses = 1',
            '[topics."some.topic"]\nhandler = "tests.parts:heeds_message"',
            '[cron.pushing]\nschedule = "* * * * * *"\npush = { input = "{sums}:in", task = [1, 2] }',
            f'[cron.tick]\nschedule = "* * * * * *"\njob = "tests.parts:tick"\narguments.marks = "{file.marks}"',
        ]
        async with file.supervisor(*parts) as supervisor, TaskClient(url, "{sums}:in", "{sums}:out") as client:
            await wait_until(lambda: supervisor.ready, "all parts to run")
            assert await client.run([20, 22]) == 42
            await wait_until(lambda: supervisor.counters.processed >= 3, "the tasks that are pushed")
            await wait_until(lambda: len(file.left()) >= 2, "two ticks")
            async with StatusReader(url) as reader:
                seen = await reader.read()
            assert [each.name for each in seen.supervisors] == ["workers"]
            assert {job.name: job.outcome for job in seen.jobs} == {"pushing": "success", "tick": "success"}
