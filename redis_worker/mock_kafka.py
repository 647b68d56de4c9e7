"""librdkafka's mock cluster in a process of its own: a Kafka for examples, tests and benchmarks, by pip alone.

It serves any number of processes, with consumer groups and rebalancing. It keeps 5 MiB or 100,000 batches a partition,
in memory, has no transactions and no security, and makes a topic of 4 partitions when a client names it.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from typing import Any, Self

from redis_worker.vocabulary.errors import ConfigurationError, RedisWorkerError

_JOIN_DELAY_MS = 200
"""Time for which the first member of a group waits for others; librdkafka's default is 3 s."""
_POINTER = ctypes.c_void_p


class MockKafka:
    """A cluster of mock brokers on 127.0.0.1, in a child process that ends with its parent."""

    def __init__(self, count: int = 1) -> None:
        """`count` is the number of brokers."""
        self._count = count
        self._brokers: str | None = None
        self._process: subprocess.Popen[str] | None = None

    @property
    def brokers(self) -> str:
        """Their addresses, as `bootstrap.servers` takes them."""
        if self._brokers is None:
            raise RedisWorkerError("the mock cluster has no address before it starts")
        return self._brokers

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and return when the brokers listen. Raises ConfigurationError."""
        if self._process is not None:
            raise RedisWorkerError("the mock cluster is already started")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "redis_worker.mock_kafka", str(self._count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            process_group=0,  # out of reach of Ctrl-C, while workers drain
        )
        try:
            self._brokers = self._reply()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process; a second call does nothing."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process = None

    def create_topic(self, topic: str, partitions: int) -> None:
        """Create a topic. Raises ConfigurationError if it exists or its name is invalid."""
        self._call("topic_create", topic, partitions)

    def down(self, broker: int = 1) -> None:
        """Close a broker's connections, and refuse others until `up`."""
        self._call("broker_set_down", broker)

    def up(self, broker: int = 1) -> None:
        """Let a broker listen again, with its topics and groups."""
        self._call("broker_set_up", broker)

    def _call(self, function: str, *arguments: str | int) -> Any:
        if self._process is None or self._process.stdin is None:
            raise RedisWorkerError("the mock cluster is not running")
        self._process.stdin.write(f"{json.dumps([function, *arguments])}\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RedisWorkerError("the mock cluster has ended")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ConfigurationError(f"the mock cluster: {reply['error']}")
        return reply["result"]


class _Cluster:
    """The mock cluster of this process, by functions of librdkafka that the Python client does not offer."""

    def __init__(self, count: int) -> None:
        """Start `count` brokers. Raises ConfigurationError."""
        try:
            from confluent_kafka import cimpl
        except ImportError:
            raise ConfigurationError("it needs pip install 'redis-worker[kafka]'") from None
        # The extension module is linked with librdkafka: its handle finds the functions of that too.
        self._library = ctypes.CDLL(cimpl.__file__)
        self._count = count
        error = ctypes.create_string_buffer(512)
        settings = self._get("conf_new", _POINTER)()
        self._get("conf_set_log_cb", None, _POINTER, _POINTER)(settings, None)
        new = self._get("new", *(_POINTER, ctypes.c_int, _POINTER, ctypes.c_char_p, ctypes.c_size_t))
        client = new(0, settings, error, len(error))
        if not client:
            raise ConfigurationError(error.value.decode())
        self._cluster = self._get("mock_cluster_new", _POINTER, _POINTER, ctypes.c_int)(client, count)
        delay = self._get("mock_group_initial_rebalance_delay_ms", None, _POINTER, ctypes.c_int32)
        delay(self._cluster, _JOIN_DELAY_MS)

    def brokers(self) -> str:
        """Return their addresses."""
        text: bytes = self._get("mock_cluster_bootstraps", ctypes.c_char_p, _POINTER)(self._cluster)
        return text.decode()

    def topic_create(self, topic: str, partitions: int) -> None:
        types = (_POINTER, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
        create = self._get("mock_topic_create", ctypes.c_int, *types)
        self._check(create(self._cluster, topic.encode(), partitions, self._count))

    def broker_set_down(self, broker: int) -> None:
        self._check(self._get("mock_broker_set_down", ctypes.c_int, _POINTER, ctypes.c_int32)(self._cluster, broker))

    def broker_set_up(self, broker: int) -> None:
        self._check(self._get("mock_broker_set_up", ctypes.c_int, _POINTER, ctypes.c_int32)(self._cluster, broker))

    def _check(self, code: int) -> None:
        if code:
            text: bytes = self._get("err2str", ctypes.c_char_p, ctypes.c_int)(code)
            raise ConfigurationError(text.decode())

    def _get(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function = self._library[f"rd_kafka_{name}"]
        function.restype, function.argtypes = result, arguments
        return function


def _serve() -> None:
    """Run the cluster until standard input ends; a line there is a call, a line of standard output its reply."""
    cluster: _Cluster | None = None
    for line in chain([json.dumps(["brokers"])], sys.stdin):
        try:
            cluster = cluster or _Cluster(int(sys.argv[1]))
            function, *arguments = json.loads(line)
            answer = {"result": getattr(cluster, function)(*arguments)}
        except ConfigurationError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
