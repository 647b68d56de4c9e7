"""The ledger: looks up every pushed task in Redis and counts it as right, wrong or lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from redis_worker.demo.plan import Planned
from redis_worker.demo.queue import DemoQueue

Account: TypeAlias = Counter[str]
"""Outcome counts of a queue's tasks.

`succeeded`, `failed` (as planned) and `dead` (unreadable, found in the dead letters) are as expected. `wrong` are
unexpected or incorrect results and dead letters, `lost` are tasks with neither a result nor a dead letter.
"""

_COLUMNS = {
    "pushed": "pushed",
    "succeeded": "succeeded",
    "failed": "failed as expected",
    "dead": "dead letters",
    "wrong": "wrong",
    "lost": "lost",
}


async def account(queue: DemoQueue, plan: Sequence[Planned]) -> Account:
    """Compare the pushed tasks with the results and dead letters in Redis."""
    answers = await queue.answers([task.id for task in plan])
    letters = Counter(await queue.dead_tasks())
    result = Account(pushed=len(plan))
    for task in plan:
        answer, dead = answers.get(task.id), letters.pop(task.raw, 0)
        if answer is None and not dead:
            result["lost"] += 1
        else:
            result[task.fate if _is_right(task, answer, dead) else "wrong"] += 1
    # The rest was never pushed.
    result["wrong"] += letters.total() + await queue.answer_count() - len(answers)
    return result


def _is_right(task: Planned, answer: bytes | None, dead: int) -> bool:
    if task.fate == "dead":
        return answer is None and dead == 1
    return answer is not None and dead == 0 and task.is_answered_by(answer)


def table(accounts: dict[str, Account]) -> list[str]:
    """Return the accounts as lines of text, with headings and a total."""
    rows = {**accounts, "total": sum(accounts.values(), Account())}
    lines = [" " * 11 + "".join(f"{name:>{len(name) + 2}}" for name in _COLUMNS.values())]
    for name, row in rows.items():
        cells = "".join(f"{row[count]:>{len(column) + 2},}" for count, column in _COLUMNS.items())
        lines.append(f"  {name:<9}{cells}")
    return lines
