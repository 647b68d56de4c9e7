"""`redis-worker serve`: a file as a service of its own, with its signals, its exit codes and its children."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.parts import marks
from tests.support import ROOT, CommandProcess, Queue, assert_each_second_once, wait_until
from tests.test_supervisor import AT_ONCE, File

Serve = Callable[..., CommandProcess]


@pytest.fixture
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def file(tmp_path: Path, server: EmbeddedServer) -> File:
    return File(tmp_path, server.url)


@pytest.fixture
def serve(file: File) -> Iterator[Serve]:
    """Starts `redis-worker serve` on parts; what is still there at the end is killed."""
    started: list[CommandProcess] = []

    def start(
        *parts: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> CommandProcess:
        if parts:
            file.write(*parts)
        started.append(CommandProcess("serve", str(file.path), *options, env=env, cwd=cwd))
        return started[-1]

    yield start
    for process in started:
        process.close()


async def test_it_works_until_it_is_told_to_stop(file: File, queue: Queue, serve: Serve) -> None:
    process = serve(file.pool(queue), file.daemon("consumer", "steady"))
    await process.said("workers: 2 of 2 parts run")
    await queue.push_tasks([[1, 2]])
    await wait_until(lambda: queue.answered(1), "the result")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert file.left() == ["begin:daemon", "end:daemon"]
    assert "stopping, the last part first" in process.log
    assert "ended: 1 processed, 0 failed" in process.log


async def test_a_second_signal_cancels(file: File, serve: Serve) -> None:
    process = serve(file.daemon("consumer", "stubborn"))
    await process.said("1 of 1 parts run")
    process.signal(signal.SIGINT)
    await process.said("stopping")
    process.signal(signal.SIGINT)
    assert await process.ended() == 1
    assert file.left() == ["begin:stubborn", "cancelled:stubborn"]


async def test_a_third_signal_ends_it_whatever_it_does(file: File, serve: Serve) -> None:
    process = serve(file.daemon("consumer", "stubborn_for_ever"))
    await process.said("1 of 1 parts run")
    process.signal(signal.SIGINT)
    await process.said("stopping")
    process.signal(signal.SIGINT)
    await process.said("cancelling")
    process.signal(signal.SIGINT)
    assert await process.ended() == 1


@pytest.mark.parametrize("function", ["stubborn_for_ever", "waits_for_a_thread"])
async def test_one_signal_ends_it_whatever_a_part_leaves_behind(file: File, serve: Serve, function: str) -> None:
    process = serve(file.daemon("consumer", function, "shutdown_timeout = 0.1"))
    await process.said("1 of 1 parts run")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert "some threads or tasks do not end: the process ends without them" in process.log


async def test_a_hangup_has_the_file_read_again(file: File, serve: Serve) -> None:
    process = serve(file.daemon("one", "steady", label="one"))
    await process.said("1 of 1 parts run")
    file.write(file.daemon("one", "steady", label="one"), file.daemon("two", "steady", label="two"))
    process.signal(signal.SIGHUP)
    await wait_until(lambda: file.left() == ["begin:one", "begin:two"], "the second daemon")
    file.write("[daemons.one]\nrum = 'x:y'")
    process.signal(signal.SIGHUP)
    await process.said("workers.toml:4: daemons.one.rum: unknown key, did you mean run?")
    assert process.alive
    assert file.left() == ["begin:one", "begin:two"]


async def test_a_change_of_the_file_is_noticed_with_watch(file: File, serve: Serve) -> None:
    """The part with other settings is ended and begun anew."""
    process = serve(file.daemon("one", "steady", label="one"), options=("--watch",))
    await process.said("1 of 1 parts run")
    file.write(file.daemon("one", "steady", label="another"))
    await wait_until(lambda: file.left() == ["begin:one", "end:one", "begin:another"], "the change")


async def test_a_change_of_the_environment_file_counts_at_a_reload(file: File, serve: Serve, tmp_path: Path) -> None:
    """The part whose setting has another value is ended and begun anew."""
    (tmp_path / ".env").write_text("LABEL=one\nOTHER=${LABEL}\n")
    file.write(file.daemon("consumer", "steady", label="${LABEL}"))
    process = serve(cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    await process.said("1 of 1 parts run")
    (tmp_path / ".env").write_text("LABEL=two\n")
    process.signal(signal.SIGHUP)
    await wait_until(lambda: file.left() == ["begin:one", "end:one", "begin:two"], "the change")


async def test_all_mistakes_are_told_at_once_and_nothing_is_run(file: File, serve: Serve) -> None:
    process = serve(
        file.daemon("consumer", "steady"),
        '[pools.fibonacci]\ninput = "a"\noutput = "b"\nprocessor = "fibonacy"\n',
        '[daemons.other]\nrun = "tests.parts:nothing"',
        '[cron.tick]\nschedule = "* * * * *"\njob = "tests.parts:tick"\noverlapp = "skip"',
    )
    assert await process.ended() == 2
    name = file.path
    assert process.log.splitlines() == [
        f"{name}:11: pools.fibonacci.processor: unknown processor 'fibonacy': did you mean fibonacci?",
        f"{name}:14: daemons.other.run: the daemon 'tests.parts:nothing': module tests.parts has no function 'nothing'",
        f"{name}:18: cron.tick.overlapp: unknown key, did you mean overlap?",
    ]
    assert file.left() == []


async def test_without_a_server_it_ends_and_says_so(tmp_path: Path, serve: Serve, file: File) -> None:
    file.path.write_text(
        '[worker]\nconnect_timeout = 0.2\n[redis]\nurl = "redis://127.0.0.1:1"\n'
        '[pools.adding]\ninput = "a"\noutput = "b"\nprocessor = "sum"\n'
    )
    process = serve()
    assert await process.ended() == 3
    assert "no Redis at redis://127.0.0.1:1 within 0.2 s" in process.log


async def test_daemons_alone_need_no_server(file: File, serve: Serve) -> None:
    file.path.write_text(file.daemon("consumer", "steady"))
    process = serve(env={"REDIS_URL": "redis://127.0.0.1:1"})
    await process.said("1 of 1 parts run")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_what_is_disabled_needs_nothing(file: File, serve: Serve) -> None:
    """Neither modules nor ports that are not to be had stop the one part that is enabled."""
    process = serve(
        file.daemon("consumer", "steady"),
        '[daemons.other]\nenable = false\nrun = "no_such_module:run"',
        "[http]\nenable = false\nport = 1",
        '[cron]\nenable = false\n[cron.tick]\nschedule = "* * * * *"\njob = "no_such_module:run"',
    )
    await process.said("1 of 1 parts run")


@pytest.mark.parametrize(
    ("options", "begun"),
    [(("--only", "two,three"), ["two", "three"]), (("--except", "two"), ["one", "three"])],
)
async def test_the_command_line_chooses(file: File, serve: Serve, options: tuple[str, ...], begun: list[str]) -> None:
    process = serve(*(file.daemon(name, "steady", label=name) for name in ("one", "two", "three")), options=options)
    await process.said("2 of 2 parts run")
    assert file.left() == [f"begin:{name}" for name in begun]


async def test_a_critical_part_ends_the_process_and_the_others_in_good_order(file: File, serve: Serve) -> None:
    critical = file.daemon("consumer", "fails", f"critical = true\nmax_restarts = 1\n{AT_ONCE}", after=0.3)
    process = serve(file.daemon("beside", "steady"), critical)
    assert await process.ended() == 1
    assert "Error: the critical part consumer has failed (RuntimeError: no table)" in process.log
    assert file.left()[-1] == "end:daemon"


async def test_when_nothing_is_left_it_ends(file: File, queue: Queue, serve: Serve) -> None:
    await queue.push_tasks([[1, 2]] * 10)
    assert await serve(file.pool(queue, more="burst = true")).ended() == 0
    assert await queue.answered(10)
    process = serve(file.daemon("consumer", "fails", 'restart = "never"'))
    assert await process.ended() == 1
    assert "Error: nothing is left to run: consumer has failed (RuntimeError: no table)" in process.log


async def test_a_file_for_a_host_is_not_served(file: File, serve: Serve) -> None:
    process = serve('[worker]\nmode = "embedded"', file.daemon("consumer", "steady"))
    assert await process.ended() == 2
    assert 'worker.mode is "embedded"' in process.log
    assert file.left() == []


async def test_children_end_with_a_supervisor_that_is_killed(file: File, serve: Serve) -> None:
    process = serve(file.daemon("consumer", "steady", "processes = 2"))
    await wait_until(lambda: len(file.left()) == 2, "the children")
    children = [int(mark.split(":")[2]) for mark in marks(file.marks)]
    process.kill()
    await wait_until(lambda: not any(map(is_there, children)), "the children to end")
    assert file.left().count("end:daemon") == 2


@pytest.mark.parametrize("function", ["stubborn", "stubborn_for_ever", "blocks_for_ever"])
async def test_children_that_heed_nothing_end_with_a_supervisor_that_is_killed(
    file: File, serve: Serve, function: str
) -> None:
    """Nobody is left to stop them, and they end."""
    process = serve(file.daemon("consumer", function, "processes = 1\nshutdown_timeout = 0.1"))
    await wait_until(lambda: len(file.left()) == 1, "the child")
    child = int(marks(file.marks)[0].split(":")[2])
    process.kill()
    await wait_until(lambda: not is_there(child), "the child to end")


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that nobody has waited for yet is still there, and dead.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text() if Path(f"/proc/{pid}/stat").exists() else False


async def test_the_signal_of_a_service_manager_to_all_processes_is_one_stop(file: File, serve: Serve) -> None:
    process = serve(file.daemon("consumer", "steady", "processes = 1"))
    await wait_until(lambda: len(file.left()) == 1, "the child")
    os.kill(int(marks(file.marks)[0].split(":")[2]), signal.SIGTERM)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert file.left() == ["begin:daemon", "end:daemon"]


async def test_log_lines_bear_the_name_of_the_part(file: File, serve: Serve) -> None:
    parts = [
        '[daemons.speaking]\nrun = "tests.parts:speaks"',
        '[daemons.apart]\nrun = "tests.parts:speaks"\nprocesses = 1',
    ]
    text = serve(*parts)
    await text.said("[apart#1] warning: the shop is open")
    await text.said("[speaking] warning: the shop is open")
    as_json = serve(options=("--log-format", "json"))
    await as_json.said('"part":"apart#1"')
    lines = [json.loads(line) for line in as_json.log.splitlines()]
    assert {line.get("part") for line in lines if line["message"] == "the shop is open"} == {"speaking", "apart#1"}


async def test_a_user_signal_shows_what_runs(file: File, queue: Queue, serve: Serve, tmp_path: Path) -> None:
    apart = file.daemon("apart", "steady", "processes = 1")
    process = serve(file.pool(queue, "tests.processors:gate"), file.daemon("consumer", "steady"), apart)
    await process.said("3 of 3 parts run")
    await queue.push({"id": "long", "task": [str(tmp_path)]})
    await wait_until((tmp_path / "running").exists, "the task to run")
    process.signal(signal.SIGUSR1)
    await process.said("task long has been running")
    for name in ("consumer", "apart#1"):
        await process.said(f"[{name}] warning: task {name.partition('#')[0]} has been running")
    await wait_until(lambda: process.log.count("await stop.wait()") == 2, "the stacks of both daemons")
    process.signal(signal.SIGTERM)
    await process.said("stopping")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1
    assert await queue.waiting()  # cancelled, and handed back


async def test_the_example_file_runs(serve: Serve) -> None:
    """With a server of its own, as the README says."""
    process = CommandProcess("serve", str(ROOT / "examples" / "workers.toml"), "--embedded")
    try:
        await process.said("parts run")
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        process.close()


async def test_three_supervisors_fire_each_second_once(file: File, serve: Serve) -> None:
    job = f'[cron.tick]\nschedule = "* * * * * *"\njob = "tests.parts:tick_at"\narguments.marks = "{file.marks}"'
    job += '\noverlap = "queue"'  # a run that is late skips none
    processes = [serve(job) for _ in range(3)]
    for process in processes:
        await process.said("1 of 1 parts run")
    await wait_until(lambda: len(marks(file.marks)) >= 8, "eight seconds")
    for process in processes:
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    assert_each_second_once(int(mark.partition(":")[0]) for mark in marks(file.marks))


async def test_a_job_of_a_supervisor_that_is_killed_goes_on_elsewhere(file: File, serve: Serve) -> None:
    job = f'[cron.tick]\nschedule = "* * * * * *"\njob = "tests.parts:tick_at"\narguments.marks = "{file.marks}"'
    one, other = serve(job), serve(job)
    for process in (one, other):
        await process.said("1 of 1 parts run")
    await wait_until(lambda: len(marks(file.marks)) >= 2, "two seconds")
    one.kill()
    count = len(marks(file.marks))
    await wait_until(lambda: len(marks(file.marks)) >= count + 3, "three more")
    assert {int(mark.partition(":")[2]) for mark in marks(file.marks)[count + 1 :]} == {other.pid}
