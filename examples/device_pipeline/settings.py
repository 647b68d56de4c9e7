"""The settings: a TOML file, checked."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from redis_worker import ConfigurationError, Duration
from redis_worker.vocabulary.duration import seconds_of

FILE = Path(__file__).with_name("pipeline.toml")
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Kafka(msgspec.Struct, forbid_unknown_fields=True):
    """The consumer, in the names of Kafka's own settings."""

    topics: list[str]
    group_id: str
    brokers: str | None = None
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    session_timeout: float | str = "30s"
    heartbeat_interval: float | str = "3s"
    max_poll_records: Count = 500
    assignment: Literal["sticky", "round-robin"] = "sticky"
    enable_auto_commit: Literal[False] = False

    def properties(self) -> dict[str, Any]:
        """Return the properties of librdkafka. Raises ConfigurationError."""
        return {
            "session.timeout.ms": _milliseconds("session_timeout", self.session_timeout),
            "heartbeat.interval.ms": _milliseconds("heartbeat_interval", self.heartbeat_interval),
        }


class Pool(msgspec.Struct, forbid_unknown_fields=True):
    """Batches at once, messages of a batch, and times."""

    size: Count = 100
    batch: Count = 50
    within: float | str = "20ms"
    timeout: float | str = "5s"


class Redis(msgspec.Struct, forbid_unknown_fields=True):
    """The cache."""

    endpoints: list[str] = []
    ttl: float | str = "1h"


class Prometheus(msgspec.Struct, forbid_unknown_fields=True):
    """The address of the metrics, and of the page."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 9090
    path: Annotated[str, msgspec.Meta(pattern="^/.+")] = "/metrics"


class Anomalies(msgspec.Struct, forbid_unknown_fields=True):
    """Readings that are alerts."""

    lowest: float = -40.0
    highest: float = 85.0
    deviation: float = 5.0
    learned: Count = 30


class Simulator(msgspec.Struct, forbid_unknown_fields=True):
    """Devices that do not exist."""

    devices: Count = 12
    rate: Annotated[float, msgspec.Meta(gt=0)] = 400.0
    legacy: Share = 0.4
    status: Share = 0.05
    invalid: Share = 0.005
    anomalous: Share = 0.002


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    kafka: Kafka
    pool: Pool = msgspec.field(default_factory=Pool)
    redis: Redis = msgspec.field(default_factory=Redis)
    prometheus: Prometheus = msgspec.field(default_factory=Prometheus)
    anomalies: Anomalies = msgspec.field(default_factory=Anomalies)
    simulator: Simulator = msgspec.field(default_factory=Simulator)


def read_settings(file: Path = FILE) -> Settings:
    """Return the settings in `file`. Raises ConfigurationError, with the key that is wrong."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        settings = msgspec.convert(content, Settings)
    except (OSError, ValueError) as error:  # msgspec's and tomllib's errors are ValueErrors
        raise ConfigurationError(f"{file}: {error}") from None
    settings.kafka.properties()
    return settings


def _milliseconds(name: str, value: Duration) -> int:
    try:
        return round(1000 * seconds_of(value))
    except ValueError as error:
        raise ConfigurationError(f"{name} {error}") from None
