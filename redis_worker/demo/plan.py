"""The tasks of the demo and their expected outcomes, computed without the processors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from redis_worker.builtin.download import DOWNLOADED, SKIPPED
from redis_worker.vocabulary.payload import dumps

Fate = Literal["succeeded", "failed", "dead"]

# Few and slow: some seconds of work, so that a worker can be killed in the middle.
_FEWEST_DOWNLOADS, _MOST_DOWNLOADS = 24, 240
# F(300) has 63 digits, so the results visibly are exact.
_FIBONACCI_UP_TO = 300


class File(NamedTuple):
    """A file that a download must create."""

    path: Path
    content: bytes

    def is_there(self) -> bool:
        """Return True if the file exists, byte for byte."""
        return self.path.is_file() and self.path.read_bytes() == self.content


class Planned(NamedTuple):
    """A task, byte for byte as pushed, and its fate."""

    id: str
    raw: bytes
    fate: Fate
    answers: tuple[bytes, ...] = ()
    """Expected results: the result of a success equals one of them, that of a failure starts with one."""
    file: File | None = None

    def is_answered_by(self, answer: bytes) -> bool:
        """Return True if `answer` is as expected."""
        if self.fate == "failed":
            return answer.startswith(self.answers)
        return answer in self.answers and (self.file is None or self.file.is_there())


_Maker = Callable[[str, int], Planned]
"""A function that creates the task with an id and a number."""

Plan = dict[str, list[Planned]]
"""Processor -> tasks."""


def make_plan(tasks: int, base_url: str, folder: Path) -> Plan:
    """Return `tasks` tasks, divided among the processors; downloads come from `base_url` and go to `folder`."""
    downloads = download_count(tasks)
    fibonacci = (tasks - downloads) // 5
    add100 = (tasks - downloads - fibonacci) // 2
    numbers = _fibonacci_numbers()
    return {
        "sum": _queue(
            "sum",
            tasks - downloads - fibonacci - add100,
            lambda id, number: _succeeding(id, [number, 10 * number, 100 * number], 111 * number),
            lambda id, number: _failing(id, [number, "ten"], "Processing"),
        ),
        "add100": _queue(
            "add100",
            add100,
            lambda id, number: _succeeding(id, [number - 100], number),
            lambda id, number: _failing(id, {"number": number}, "Parse"),
        ),
        "fibonacci": _queue(
            "fibonacci",
            fibonacci,
            lambda id, number: _succeeding(id, [n := 1 + number % _FIBONACCI_UP_TO], numbers[n]),
            lambda id, number: _failing(id, [-number], "Processing"),
        ),
        "download": _queue(
            "download",
            downloads,
            partial(_download, base_url, folder),
            lambda id, number: _failing(id, [f"{base_url}/missing/{number}", f"missing-{number}"], "Processing"),
        ),
    }


def download_count(tasks: int) -> int:
    """Return the number of downloads among `tasks` tasks."""
    return min(_MOST_DOWNLOADS, max(_FEWEST_DOWNLOADS, tasks // 20))


def files_to_serve(plan: Plan) -> dict[str, bytes]:
    """Return path -> content of all files to download."""
    return {f"/{task.file.path.name}": task.file.content for task in plan["download"] if task.file}


def _queue(processor: str, count: int, right: _Maker, wrong: _Maker) -> list[Planned]:
    """Return tasks that succeed, about every hundredth that fails, and an unreadable one in the middle."""
    every = min(100, count // 4)
    plan = []
    for number in range(1, count + 1):
        id = f"{processor}-{number}"
        if number == count // 2:
            plan.append(Planned(id, b'{"id":"%b","task":[' % id.encode(), "dead"))
        else:
            plan.append(wrong(id, number) if number % every == 0 else right(id, number))
    return plan


def _fibonacci_numbers() -> list[int]:
    """Compute the numbers by addition; the processor multiplies."""
    numbers = [0, 1]
    while len(numbers) <= _FIBONACCI_UP_TO:
        numbers.append(numbers[-2] + numbers[-1])
    return numbers


def _download(base_url: str, folder: Path, id: str, number: int) -> Planned:
    name = f"file-{number}.txt"
    content = f"{name} is file number {number} of the demo.\n".encode() * 500
    # A worker may die between renaming the file and writing the result.
    answers = tuple(b'{"status":"success","result":"%b"}' % text.encode() for text in (DOWNLOADED, SKIPPED))
    file = File(folder / name, content)
    return Planned(id, _payload(id, [f"{base_url}/{name}", name]), "succeeded", answers, file)


def _succeeding(id: str, task: Any, value: int) -> Planned:
    return Planned(id, _payload(id, task), "succeeded", (b'{"status":"success","result":%d}' % value,))


def _failing(id: str, task: Any, step: Literal["Parse", "Processing"]) -> Planned:
    beginning = b'{"status":"error","error":"%b error: ' % step.encode()
    return Planned(id, _payload(id, task), "failed", (beginning,))


def _payload(id: str, task: Any) -> bytes:
    return dumps({"id": id, "task": task})
