"""The pipeline: a handler, or a processor, that is composed of stages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis_worker.pipeline.stage import Stage
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import processor
from redis_worker.vocabulary.stage_status import STAGES, StageStatus


class Pipeline:
    """Stages, each of which gets what its predecessor emits.

        pipeline = Pipeline(parse, validate, to_row, name="devices")
        KafkaWorker("localhost:9092", "device-data", "devices", pipeline.batch, batch=True, decode=bytes, sink=sink)

    A stage is a function, async or plain, of a value (or of a list of them: see `stage`). It returns a value, None to
    drop it, or an Emit of several; it raises Rejected for a dead letter that names the stage and the field, Retry, or
    any other error, which is retried. Plain stages run on the event loop. The first stage gets the message (for a
    processor, the list of arguments). Stages run one after the other for all messages of a batch.
    """

    def __init__(self, *stages: Callable[[Any], Any], name: str = "pipeline") -> None:
        """Raises ConfigurationError without a stage, for a function that cannot be one, or for a name used twice."""
        self.name = self.__name__ = name
        self._stages = [Stage(function) for function in stages]
        setattr(self, STAGES, self.status)
        if not stages:
            raise ConfigurationError(f"the pipeline {name} has no stages")
        names = [each.name for each in self._stages]
        if twice := [each for each in names if names.count(each) > 1]:
            raise ConfigurationError(
                f"the pipeline {name} has two stages with the name {twice[0]}: name one with @stage(name=…)"
            )

    async def __call__(self, message: Any) -> Any:
        """Return what becomes of one message: a value, a list of several, or None.

        Raises Rejected, Retry or StageFailed.
        """
        [entry] = await self.run([message])
        if isinstance(entry, BaseException):
            raise entry
        return entry

    @property
    def batch(self) -> Callable[[list[Any]], Awaitable[list[Any]]]:
        """The batch handler: it takes a list of messages, and returns what `run` does."""

        @processor(name=self.name)
        async def batch(messages: list[Any]) -> list[Any]:
            return await self.run(messages)

        setattr(batch, STAGES, self.status)
        return batch

    async def run(self, messages: Sequence[Any]) -> list[Any]:
        """Return an entry for each message: a value, a list of several, None, or the exception that it failed with."""
        values, origins = list(messages), range(len(messages))
        failures: dict[int, BaseException] = {}
        where: Sequence[int] = origins
        for each in self._stages:
            if not values:
                break
            values, where = await each.run(values, where, failures)
        if where is origins:
            return values
        entries: list[Any] = [None] * len(messages)
        several: dict[int, list[Any]] = {}
        for value, origin in zip(values, where, strict=True):
            if entries[origin] is None:
                entries[origin] = value
            else:
                several.setdefault(origin, [entries[origin]]).append(value)
        for origin, entry in (*several.items(), *failures.items()):
            entries[origin] = entry
        return entries

    def status(self) -> list[StageStatus]:
        """Return the counts and times of the stages, in their order."""
        return [each.status() for each in self._stages]
