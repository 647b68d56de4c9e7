"""The work of a worker on functions: how the engine runs its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redis_worker.engine.gated_runner import Gate
from redis_worker.engine.runner import InlineRunner, Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.thread_runner import ThreadRunner
from redis_worker.functions.declared import DeclaredFunctions
from redis_worker.functions.executions import Executions
from redis_worker.functions.handling import FunctionHandler
from redis_worker.functions.marks import Marks
from redis_worker.functions.progress import Reports
from redis_worker.functions.reading import FunctionReader
from redis_worker.functions.runner import FunctionRunner, GatedFunctionRunner
from redis_worker.vocabulary.processor import Declaration


@dataclass(frozen=True, slots=True)
class FunctionWork:
    """The functions of a queue; each declares its execution, time limit and retries."""

    queue: DeclaredFunctions
    declaration: Declaration
    concurrency: int
    max_deliveries: int
    marks: Marks
    reports: Reports
    gate: Gate | None
    """Lets tasks start under limits; None without limits."""

    def execution(self) -> Executions:
        """Return the place of the calls. Raises ConfigurationError if a function cannot be called as it declares."""
        queue = self.queue
        return Executions(
            *(queue.functions.values(), self.concurrency, self.max_deliveries, queue.lifetime, queue.middlewares),
            noted=self.gate is not None,
        )

    def runner(self, execution: Executions) -> Callable[[Settler], Runner]:
        """Return the function that builds the runner for a settler."""
        reader = FunctionReader(self.queue.name, self.queue.functions, self.max_deliveries, self.marks, self.reports)
        handler = FunctionHandler(reader, execution)
        concurrency = self.concurrency
        # Runners that call functions themselves do more tasks a second; one for mixed functions makes a task of each.
        if (gate := self.gate) is not None:
            return lambda settler: GatedFunctionRunner(gate, handler, settler, concurrency)
        match {function.declaration.execution for function in execution}:
            case _ if self.queue.middlewares:
                return lambda settler: FunctionRunner(handler, settler, concurrency)
            case kinds if kinds == {"inline"}:
                return lambda settler: InlineRunner(handler, settler, concurrency)
            case kinds if kinds == {"thread"}:
                return lambda settler: ThreadRunner(handler, settler, concurrency)
            case _:
                return lambda settler: FunctionRunner(handler, settler, concurrency)
