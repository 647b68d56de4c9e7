"""Reading a plan again, for a reload: a plan with a mistake is refused."""

from __future__ import annotations

from collections.abc import Callable

from redis_worker.engine.thread_pool import OwnThreads
from redis_worker.file.plan import Plan
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger

logger = library_logger("redis_worker.supervisor")


async def read_again(read: Callable[[], Plan], path: str) -> Plan | None:
    """Return the plan that `read` returns; log its mistakes and return None if it is refused."""
    # In a thread, because imports may take long.
    plan = await OwnThreads("redis-worker reload").run(_attempt, read)
    if isinstance(plan, Plan):
        return plan
    for line in str(plan).splitlines():
        logger.error("%s", line)
    logger.error("%s is refused: what was running goes on", path)
    return None


def _attempt(read: Callable[[], Plan]) -> Plan | Exception:
    try:
        return read()
    except ConfigurationError as error:
        return error
    except Exception as error:
        logger.debug("a defect", exc_info=error)
        return ConfigurationError(f"a defect of redis-worker, please report it: {type(error).__name__}: {error}")
