"""The ledger: looks up every pushed task in Redis and counts it as right, wrong or lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from redis_worker.demo.plan import Fate, Planned
from redis_worker.demo.queue import DemoQueue

_COLUMNS = ("pushed", "succeeded", "failed as expected", "dead letters", "wrong", "lost")


@dataclass(slots=True)
class Account:
    """Outcome counts of a queue's tasks."""

    pushed: int = 0
    succeeded: int = 0
    failed: int = 0
    """Tasks that failed as planned."""
    dead: int = 0
    """Unreadable tasks, found in the dead letters."""
    wrong: int = 0
    """Unexpected or incorrect results and dead letters."""
    lost: int = 0
    """Tasks with neither a result nor a dead letter."""

    def count(self, fate: Fate) -> None:
        """Count one more task with its planned fate."""
        setattr(self, fate, getattr(self, fate) + 1)


async def account(queue: DemoQueue, plan: Sequence[Planned]) -> Account:
    """Compare the pushed tasks with the results and dead letters in Redis."""
    answers = await queue.answers([task.id for task in plan])
    letters = Counter(await queue.dead_tasks())
    result = Account(pushed=len(plan))
    for task in plan:
        answer, dead = answers.get(task.id), letters.pop(task.raw, 0)
        if answer is None and not dead:
            result.lost += 1
        elif _is_right(task, answer, dead):
            result.count(task.fate)
        else:
            result.wrong += 1
    # The rest was never pushed.
    result.wrong += letters.total() + await queue.answer_count() - len(answers)
    return result


def _is_right(task: Planned, answer: bytes | None, dead: int) -> bool:
    if task.fate == "dead":
        return answer is None and dead == 1
    return answer is not None and dead == 0 and task.is_answered_by(answer)


def total(accounts: Iterable[Account]) -> Account:
    """Return the sum of all accounts."""
    return Account(*(sum(column) for column in zip(*map(astuple, accounts), strict=True)))


def table(accounts: dict[str, Account]) -> list[str]:
    """Return the accounts as lines of text, with headings and a total."""
    rows = {**accounts, "total": total(accounts.values())}
    lines = [" " * 11 + "".join(f"{name:>{len(name) + 2}}" for name in _COLUMNS)]
    for name, row in rows.items():
        cells = zip(_COLUMNS, astuple(row), strict=True)
        lines.append(f"  {name:<9}" + "".join(f"{number:>{len(column) + 2},}" for column, number in cells))
    return lines
