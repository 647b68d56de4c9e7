"""Processes end with what they have started, however they end, and their end is noticed whatever goes on."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_worker import WorkerPool, start_worker_pool
from redis_worker.embedded import EmbeddedServer
from redis_worker.engine.execution import TimedOut
from redis_worker.engine.processes import Processes
from tests import process_tasks
from tests.support import PATIENCE, ROOT, CommandProcess, Queue, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]
TASKS = "tests.process_tasks:"

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks at processes in /proc")


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture(autouse=True)
def _nothing_goes_on(tmp_path: Path) -> Iterator[None]:
    """A test that fails leaves no program behind either."""
    yield
    for pid in pids(tmp_path, "programs"):
        if lives(pid):
            os.kill(pid, signal.SIGKILL)


def pids(folder: Path, name: str) -> list[int]:
    file = folder / name
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def lives(pid: int) -> bool:
    """True when there is such a process, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def begun(folder: Path, count: int = 1) -> list[int]:
    """The programs, once there are so many."""
    await wait_until(lambda: len(pids(folder, "programs")) >= count, "the programs to begin")
    return pids(folder, "programs")


async def gone(programs: list[int]) -> None:
    await wait_until(lambda: not any(map(lives, programs)), f"the programs {programs} to end")


async def test_the_time_limit_ends_what_the_task_has_started(queue: Queue, worker: Start, tmp_path: Path) -> None:
    process = await worker("--timeout", "1", processor=f"{TASKS}program").started()
    await queue.push({"id": "t", "task": [str(tmp_path)]})
    programs = await begun(tmp_path)
    await wait_until(lambda: queue.answered(1))
    await gone(programs)
    assert (await queue.result("t"))["error"] == "Processing error: timed out after 1 s"
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


@pytest.mark.parametrize("how", ["stop", "cancel", "kill"])
async def test_the_end_of_a_worker_ends_what_its_tasks_have_started(
    queue: Queue, worker: Start, tmp_path: Path, how: str
) -> None:
    patience = "600" if how == "cancel" else "0.5"
    process = await worker("--lease", "2", "--shutdown-timeout", patience, processor=f"{TASKS}program").started()
    await queue.push({"id": "t", "task": [str(tmp_path)]})
    programs = await begun(tmp_path)
    assert os.getpgid(programs[0]) != os.getpgid(process.pid)  # Ctrl-C in a terminal reaches the worker's group
    if how == "kill":
        process.kill()
    else:
        process.signal(signal.SIGINT)
        await process.said("stopping")
        if how == "cancel":
            process.signal(signal.SIGINT)
        await process.ended()
    await gone(programs)
    if how == "kill":  # for the queue to be whole again
        await queue.redis.delete(queue.keys.waiting)
        second = await worker("--lease", "2").started()
        await wait_until(queue.buried)
        await wait_until(lambda: queue.answered(1))
        second.signal(signal.SIGTERM)
        assert await second.ended() == 0


@pytest.mark.parametrize("whom", ["member", "parent"])
async def test_what_threads_of_a_fleet_have_started_ends_with_its_member(
    queue: Queue, worker: Start, tmp_path: Path, whom: str
) -> None:
    """A worker in the foreground shares its group with the shell; those of a fleet have groups of their own."""
    options = ("-w", "2", "--execution", "thread", "--lease", "2", "--shutdown-timeout", "0.5", "--max-deliveries", "1")
    process = await worker(*options, processor=f"{TASKS}program").started()
    await queue.push({"id": "t", "task": [str(tmp_path)]})
    programs = await begun(tmp_path)
    if whom == "parent":
        process.kill()
        await gone([*programs, *pids(tmp_path, "processes")])
        await queue.redis.delete(queue.keys.waiting)
        return
    os.kill(pids(tmp_path, "processes")[0], signal.SIGKILL)
    await gone(programs)
    await wait_until(lambda: queue.answered(1))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.log


FILE = """
[redis]
url = "{url}"
[daemons.d]
run = "tests.process_tasks:daemon"
arguments = {{ folder = "{folder}" }}
processes = 1
shutdown_timeout = 0.5
restart_backoff = 600
restart_backoff_max = 600
"""


@pytest.mark.parametrize("whom", ["part", "supervisor", "stop"])
async def test_what_a_part_in_a_process_of_its_own_has_started_ends_with_it(
    server: EmbeddedServer, tmp_path: Path, whom: str
) -> None:
    """`gone` waits until each program, and the process of the part, has ended."""
    file = tmp_path / "workers.toml"
    file.write_text(FILE.format(url=server.url, folder=tmp_path))
    supervisor = CommandProcess("serve", str(file))
    try:
        programs = await begun(tmp_path)
        part = pids(tmp_path, "processes")[0]
        if whom == "part":
            os.kill(part, signal.SIGKILL)
        elif whom == "supervisor":
            supervisor.kill()
        else:
            supervisor.signal(signal.SIGTERM)
        await gone(programs)
        await gone([part])
    finally:
        supervisor.close()


@pytest.mark.parametrize("apart", [False, True])
async def test_a_death_is_noticed_while_a_fork_lives(queue: Queue, worker: Start, tmp_path: Path, apart: bool) -> None:
    process = await worker("--max-deliveries", "1", processor=f"{TASKS}forks").started()
    await queue.push({"id": "t", "task": [str(tmp_path), apart]})
    await wait_until(lambda: queue.answered(1))
    assert (await queue.result("t"))["error"] == "Processing error: the process that ran the task died, once"
    programs = pids(tmp_path, "programs")
    if apart:
        assert all(map(lives, programs))  # it has left the group, as daemons do
    else:
        await gone(programs)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_a_fork_that_comes_back_from_the_processor_does_not_answer(queue: Queue, worker: Start) -> None:
    process = await worker("-c", "1", processor=f"{TASKS}fork_that_comes_back").started()
    await queue.push_tasks([[n] for n in range(4)])
    await wait_until(lambda: queue.answered(4))
    assert [(await queue.result(n))["result"] for n in range(4)] == [[n] for n in range(4)]
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


@pytest.mark.parametrize("form", ["process", "part"])
async def test_programs_are_born_with_the_usual_signals(
    server: EmbeddedServer, queue: Queue, worker: Start, tmp_path: Path, form: str
) -> None:
    if form == "process":
        process: CommandProcess = worker(processor=f"{TASKS}signals")
    else:
        file = tmp_path / "workers.toml"
        file.write_text(
            f'[redis]\nurl = "{server.url}"\n[pools.p]\ninput = "{queue.keys.waiting}"\n'
            f'output = "{queue.keys.output}"\nprocessor = "{TASKS}signals"\nexecution = "thread"\nprocesses = 1\n'
        )
        process = CommandProcess("serve", str(file))
    try:
        await queue.push({"id": "t", "task": []})
        await wait_until(lambda: queue.answered(1))
        status = dict(line.split(":\t", 1) for line in (await queue.result("t"))["result"].splitlines())
        for mask in ("SigIgn", "SigBlk"):
            assert not int(status[mask], 16) & (1 << signal.SIGINT - 1), mask
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        process.close()


INTERRUPTED = """
import asyncio, os, signal
from redis_worker.engine.processes import Processes
from tests.slow_import import answer

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    os.environ["SLOW_IMPORT"] = "yes"
    processes = Processes(answer, None, 1)
    result = await processes.call([1])
    processes.close()
    print(result.error or "answered", flush=True)

asyncio.run(main())
"""


async def test_ctrl_c_does_not_reach_a_process_that_is_just_beginning() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"importing\n"
            os.killpg(process.pid, signal.SIGINT)
            assert await asyncio.to_thread(process.stdout.readline) == b"answered\n"
        finally:
            process.kill()


async def test_processes_leave_nothing_behind(tmp_path: Path) -> None:
    """Neither descriptors nor zombies: of calls that end, that time out, and that are cut short by a close."""
    await _use_processes(tmp_path)  # what multiprocessing keeps for the life of the process is there from now on
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await _use_processes(tmp_path)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not multiprocessing.active_children()


async def _use_processes(folder: Path) -> None:
    limited = Processes(process_tasks.program, 0.5, 1)
    with pytest.raises(TimedOut):
        await limited.call([str(folder)])
    limited.close()
    unlimited = Processes(process_tasks.program, None, 1)
    call = asyncio.create_task(unlimited.call([str(folder)]))
    await begun(folder, len(pids(folder, "programs")) + 1)
    unlimited.close()
    assert "died" in str((await call).error)
    answering = Processes(process_tasks.signals, None, 1)
    for _ in range(2):
        assert (await answering.call([])).error is None
    answering.close()


async def test_a_process_that_dies_between_two_tasks_is_no_death_of_a_task() -> None:
    processes = Processes(process_tasks.signals, None, 1)
    try:
        assert (await processes.call([])).error is None
        (child,) = multiprocessing.active_children()
        os.kill(child.pid or 0, signal.SIGKILL)
        await wait_until(
            lambda: not multiprocessing.active_children()
        )  # with all of its threads, as the worker sees it
        assert (await processes.call([])).error is None
    finally:
        processes.close()


async def test_of_several_tasks_in_hand_only_the_one_that_runs_is_charged(
    queue: Queue, server: EmbeddedServer, tmp_path: Path
) -> None:
    """A death and a time limit: every other task is answered, and has run once."""
    ways = ["quick"] * 600
    for position, way in ((300, "die"), (301, "die"), (302, "die"), (450, "hang"), (599, "hang")):
        ways[position] = way
    await queue.push_tasks([[str(tmp_path), way, number] for number, way in enumerate(ways)])
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", process_tasks.noted)
    await start_worker_pool(*names, 2, execution="process", timeout=5, burst=True, max_deliveries=2)
    runs = Counter(map(int, (tmp_path / "runs").read_text().split()))
    assert runs == {number: 2 if way == "die" else 1 for number, way in enumerate(ways)}
    results = await queue.results()
    errors = {"die": "the process that ran the task died, 2 times", "hang": "timed out after 5 s"}
    for number, way in enumerate(ways):
        assert results[str(number)].get("error", "").removeprefix("Processing error: ") == errors.get(way, "")
    assert await queue.inflight() == []


async def test_what_a_process_has_in_hand_behind_a_long_task_goes_to_others(
    queue: Queue, server: EmbeddedServer, tmp_path: Path
) -> None:
    await queue.push_tasks([[str(tmp_path), "gate" if number == 400 else "quick", number] for number in range(500)])
    names, others = (server.url, queue.keys.waiting, queue.keys.output, "list"), list[int]()

    async def other(arguments: list[Any]) -> None:
        others.append(arguments[2])

    async with WorkerPool(*names, process_tasks.noted, 1, execution="process") as pool:
        await wait_until(lambda: queue.answered(400), "the quick ones")
        [running] = pool.running_tasks()
        assert running.id == "400"
        async with WorkerPool(*names, other):
            await wait_until(lambda: queue.answered(499), "those behind it")
        (tmp_path / "open").touch()
        await wait_until(lambda: queue.answered(500), "the long one")
    assert sorted(others) == list(range(401, 500))


async def test_a_stop_hands_back_what_a_process_has_not_started(
    queue: Queue, server: EmbeddedServer, tmp_path: Path
) -> None:
    ways = ["gate" if number == 400 else "quick" for number in range(500)]
    await queue.push_tasks([[str(tmp_path), way, number] for number, way in enumerate(ways)])
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", process_tasks.noted, 1)
    async with WorkerPool(*names, execution="process") as pool:
        await wait_until(lambda: queue.answered(400), "the quick ones")
        pool.stop()

        async def are_back() -> bool:
            return len(await queue.waiting()) == 99

        await wait_until(are_back, "the others to be back")
        (tmp_path / "open").touch()
    assert await queue.answered(401)
    assert [json.loads(raw)["task"][2] for raw in await queue.waiting()] == list(range(401, 500))
    await queue.redis.delete(queue.keys.waiting)


PROGRAM = """
import asyncio, sys, time
from redis_worker import WorkerPool

def nap(arguments):
    print("running", flush=True)
    time.sleep(600)

async def main():
    pool = WorkerPool(sys.argv[1], sys.argv[2], sys.argv[3], "list", nap, shutdown_timeout=0.5)
    work = asyncio.create_task(pool.run())
    await asyncio.to_thread(sys.stdin.readline)
    pool.stop()
    await work
    print("ended", flush=True)

asyncio.run(main())
"""


async def test_a_thread_that_does_not_end_keeps_no_program(queue: Queue, server: EmbeddedServer) -> None:
    await queue.push({"id": "t", "task": [1]})
    command = [sys.executable, "-c", PROGRAM, server.url, queue.keys.waiting, queue.keys.output]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert await asyncio.to_thread(process.stdout.readline) == "running\n"  # type: ignore[union-attr]
            output, _ = await asyncio.to_thread(process.communicate, "stop\n", PATIENCE)
        finally:
            process.kill()
    assert (output, process.returncode) == ("ended\n", 0)
    assert await queue.waiting()


def _unshare() -> list[str]:
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=PATIENCE).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("no process 1 can be made here")
    return command


def as_process_1(*arguments: str, **settings: Any) -> subprocess.Popen[str]:
    command = [*_unshare(), sys.executable, "-m", "redis_worker", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, **settings)


async def test_process_1_reaps_orphans_and_passes_signals_on(queue: Queue, server: EmbeddedServer) -> None:
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    with as_process_1("run", "--url", server.url, *keys, "--processor", f"{TASKS}orphan") as unshared:
        try:
            zombies = 1
            for id in range(20):  # a busy machine may take its time, but not again and again
                await queue.push({"id": id, "task": []})
                await wait_until(lambda id=id: queue.result(id))
                zombies = (await queue.result(id))["result"]
                if not zombies:
                    break
            assert not zombies
            (init,) = map(int, Path(f"/proc/{unshared.pid}/task/{unshared.pid}/children").read_text().split())
            os.kill(init, signal.SIGTERM)
            assert await asyncio.to_thread(unshared.wait, PATIENCE) == 0
        finally:
            unshared.kill()


async def test_process_1_ends_as_its_command_does() -> None:
    for arguments, code in ((["processors"], 0), (["run"], 2), (["check", "no-file"], 2)):
        with as_process_1(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as unshared:
            unshared.communicate(timeout=PATIENCE)
        assert unshared.returncode == code
