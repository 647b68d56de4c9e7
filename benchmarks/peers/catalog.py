"""The peers: packages, commands, and the place where their results are counted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

_CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Peer:
    """A worker. In its commands `{bin}` is the folder of its environment's programs, `{program}` its own program."""

    title: str
    name: str
    """The name of its file here, and of its environment."""
    packages: tuple[str, ...]
    """The first one is the worker itself."""
    workers: Mapping[str, str]
    """The command of a worker for throughput, by the task that it runs."""
    killed: str
    """The command of a worker with default settings and two slots."""
    counted: tuple[str, str]
    """HLEN, ZCARD or SCARD of a key, KEYS of a pattern, or LEFT: members of a sorted set that have no result yet."""
    settings: str
    """The settings for throughput, for readers."""
    variables: Mapping[str, str] = field(default_factory=dict)
    toolchain: str = "python"


_RUN = "{bin}/python -m redis_worker run --url {url} --input peer:input --output peer:output --log-level warning"
_OWN = "--processor benchmarks.peers.ours:"
_TASKIQ = "{bin}/taskiq worker benchmarks.peers.taskiq:broker --log-level ERROR"
_STREAQ = "{bin}/streaq run benchmarks.peers.streaq"
_CELERY = "{bin}/celery -A benchmarks.peers.celery worker --loglevel ERROR --concurrency 2"
_CELERY_SHORT = f"{{bin}}/celery -A benchmarks.peers.celery worker --loglevel ERROR --concurrency {_CORES}"
_RQ = "{bin}/rq worker-pool --url {url} --logging-level ERROR"


def _taskiq(broker: str) -> Peer:
    many = f"{_TASKIQ} --workers {_CORES} --max-async-tasks 100 --max-prefetch 100"
    return Peer(
        f"taskiq, {broker}", "taskiq", ("taskiq", "taskiq-redis", "redis[hiredis]", "uvloop", "orjson"),
        {"coroutine": many, "function": many},
        f"{_TASKIQ} --workers 1 --max-async-tasks 2", ("KEYS", "result:*"),
        f"{_CORES} processes, 100 tasks each, prefetch 100, orjson", {"PEER_BROKER": broker},
    )  # fmt: skip


OURS = Peer(
    "redis_worker", "ours", (),
    {
        "function": f"{_RUN} {_OWN}function --execution inline",
        "coroutine": f"{_RUN} {_OWN}coroutine --concurrency 256",
        "function in threads": f"{_RUN} {_OWN}function --concurrency 4 --execution thread",
    },
    f"{_RUN} {_OWN}slow --concurrency 2", ("HLEN", "peer:output"),
    "1 process; inline, 256 at once, 4 threads",
)  # fmt: skip

PEERS = (
    OURS,
    Peer(
        "arq", "arq", ("arq", "redis[hiredis]"),
        {"coroutine": "{bin}/arq benchmarks.peers.arq.Throughput"},
        "{bin}/arq benchmarks.peers.arq.Defaults", ("KEYS", "arq:result:*"), "1 process, 100 jobs, poll delay 10 ms",
    ),
    Peer(
        "SAQ", "saq", ("saq", "saq[redis,hiredis]", "typing_extensions"),
        dict.fromkeys(("coroutine", "function"), f"{{bin}}/saq benchmarks.peers.saq.throughput --workers {_CORES}"),
        "{bin}/saq benchmarks.peers.saq.defaults", ("LEFT", "saq:default:incomplete"),
        f"{_CORES} processes, concurrency 32",
    ),
    _taskiq("list"),
    _taskiq("stream"),
    Peer(
        "streaQ", "streaq", ("streaq", "uvloop"),
        dict.fromkeys(("coroutine", "function"), f"{_STREAQ}:worker --workers {_CORES}"),
        f"{_STREAQ}:defaults", ("KEYS", "streaq:default:task:results:*"), f"{_CORES} processes, concurrency 32, uvloop",
    ),
    Peer(
        "RQ", "rq", ("rq", "redis[hiredis]"),
        {"function": f"{_RQ} --num-workers {_CORES} --worker-class rq.worker.SimpleWorker"},
        f"{_RQ} --num-workers 2", ("ZCARD", "rq:finished:default"), f"{_CORES} processes, SimpleWorker",
    ),
    Peer(
        "Celery", "celery", ("celery", "celery[redis]", "hiredis"),
        {"function": f"{_CELERY_SHORT} --prefetch-multiplier 128 --without-gossip --without-mingle"},
        _CELERY, ("KEYS", "celery-task-meta-*"), f"{_CORES} processes, prefetch 128 each",
    ),
    Peer(
        "Dramatiq", "dramatiq", ("dramatiq", "dramatiq[redis]", "hiredis"),
        dict.fromkeys(("coroutine", "function"), f"{{bin}}/dramatiq benchmarks.peers.dramatiq --processes {_CORES}"),
        "{bin}/dramatiq benchmarks.peers.dramatiq --processes 1 --threads 2", ("KEYS", "dramatiq-results:*"),
        f"{_CORES} processes of 8 threads, prefetch 100", {"dramatiq_queue_prefetch": "100"},
    ),
    Peer(
        "Huey", "huey", ("huey", "redis[hiredis]"),
        {"function": f"{{bin}}/huey_consumer benchmarks.peers.huey.queue --quiet -k process -w {2 * _CORES}"},
        "{bin}/huey_consumer benchmarks.peers.huey.queue --quiet -w 2", ("HLEN", "huey.results.peer"),
        f"{2 * _CORES} processes",
    ),
    Peer(
        "BullMQ", "bullmq", ("bullmq", "ioredis"), {"coroutine": "{program} work coroutine 100"},
        "{program} work slow 2", ("ZCARD", "bull:peer:completed"), "1 process, concurrency 100", toolchain="node",
    ),
    Peer(
        "asynq", "asynq", ("github.com/hibiken/asynq",), {"function": "{program} work function 100"},
        "{program} work slow 2", ("ZCARD", "asynq:{default}:completed"), "1 process, concurrency 100", toolchain="go",
    ),
)  # fmt: skip
