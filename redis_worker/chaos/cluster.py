"""A private Redis Cluster of three masters."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import count

from redis_worker.chaos.server import PrivateServer
from redis_worker.embedded import HOST
from redis_worker.vocabulary.errors import ConfigurationError, RedisWorkerError

_NODES = 3
_SLOTS = 16384
# Limit of the time until all nodes know each other, in seconds.
_PATIENCE = 30.0
_TICK = 0.05


async def start_cluster(stack: AsyncExitStack) -> list[PrivateServer]:
    """Start the nodes; they end with `stack`. Raises ConfigurationError if the server program is not able to."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "3000")
    nodes = [await stack.enter_async_context(PrivateServer(*options)) for _ in range(_NODES)]
    try:
        for index, node in enumerate(nodes):
            first, last = (_SLOTS * edge // _NODES for edge in (index, index + 1))
            await node.call("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            await node.call("CLUSTER", "MEET", HOST, nodes[0].embedded.port)
    except RedisWorkerError as error:
        program = nodes[0].embedded.binary
        raise ConfigurationError(f"no cluster can be made of {program} ({error}): use Redis 7 or Valkey") from None
    end = time.monotonic() + _PATIENCE
    while not all([await _sees_all(node) for node in nodes]):
        if time.monotonic() > end:
            raise ConfigurationError(f"the nodes of the cluster do not find each other within {_PATIENCE:g} s")
        await asyncio.sleep(_TICK)
    return nodes


async def elsewhere(node: PrivateServer, key: str) -> str:
    """Return a name like `key` with a slot on another node."""

    async def home(name: str) -> int:
        return int(await node.call("CLUSTER", "KEYSLOT", name)) * _NODES // _SLOTS

    first = await home(key)
    for number in count(2):
        if await home(f"{key}{number}") != first:
            return f"{key}{number}"
    raise AssertionError


async def _sees_all(node: PrivateServer) -> bool:
    state = (await node.call("CLUSTER", "INFO")).decode().split()
    return "cluster_state:ok" in state and f"cluster_known_nodes:{_NODES}" in state
