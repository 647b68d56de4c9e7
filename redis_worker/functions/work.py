"""The work of a worker on functions: how the engine runs its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redis_worker.engine.gated_runner import Gate, GatedRunner
from redis_worker.engine.keeping_runner import KeepingRunner
from redis_worker.engine.lifespan import in_children
from redis_worker.engine.mixed_runner import GrantedThreads, MixedRunner
from redis_worker.engine.process_runner import ProcessRunner
from redis_worker.engine.processes import Processes
from redis_worker.engine.runner import InlineRunner, Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.starts import Noted
from redis_worker.engine.task_runner import TaskRunner
from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.engine.thread_runner import ThreadRunner
from redis_worker.functions.declared import DeclaredFunctions
from redis_worker.functions.executions import Executions, call, call_in_child, check_sent, encode_in
from redis_worker.functions.handling import FunctionHandler
from redis_worker.functions.marks import Marks
from redis_worker.functions.progress import Reports
from redis_worker.functions.reading import FunctionReader
from redis_worker.functions.values import result_of
from redis_worker.vocabulary.processor import Declaration, Execution


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

    def execution(self) -> Executions | None:
        """Return the place of the calls, if there is middleware or a gate; otherwise the runner has them made.

        Raises ConfigurationError if a function cannot be called as it declares.
        """
        queue = self.queue
        functions = queue.functions.values()
        check_sent(functions)
        if not queue.middlewares and self.gate is None:
            return None
        here, in_child = (call, call_in_child) if self.gate is None else (Noted(call), Noted(call_in_child))
        encode = encode_in(queue.middlewares)
        processes = Processes(in_children(queue.lifetime, in_child), None, self.max_deliveries, encode)
        return Executions(functions, queue.middlewares, ThreadPool(self.concurrency, "redis-worker"), processes, here)

    def runner(self, execution: Executions | None) -> Callable[[Settler], Runner]:
        """Return the function that builds the runner for a settler."""
        queue, marks = self.queue, self.marks
        reader = FunctionReader(queue.name, queue.functions, self.max_deliveries, marks, self.reports)
        handler = FunctionHandler(reader, execution or {})

        def build(settler: Settler) -> Runner:
            if execution is None:
                runner = self._runner(handler, settler)
            elif self.gate is not None:
                runner = GatedRunner(self.gate, handler, settler, self.concurrency)
            else:
                runner = KeepingRunner(handler, settler, self.concurrency)
            marks.on_new = lambda: runner.stop(handler.is_stopped)
            return runner

        return build

    def _runner(self, handler: FunctionHandler, settler: Settler) -> Runner:
        """Return the runner that fits all functions, or one that leaves each to a runner that fits it."""
        queue, concurrency, tries = self.queue, self.concurrency, self.max_deliveries
        called = in_children(queue.lifetime, call_in_child)
        runners: dict[Execution, Callable[[], Runner]] = {
            "async": lambda: TaskRunner(handler, settler, concurrency),
            "inline": lambda: InlineRunner(handler, settler, concurrency),
            "thread": lambda: ThreadRunner(handler, settler, concurrency),
            "process": lambda: ProcessRunner(handler, settler, concurrency, called, tries, result_of),
        }
        kinds = {function.declaration.execution for function in queue.functions.values()}
        if len(kinds) == 1:
            return runners[kinds.pop()]()
        runners["thread"] = lambda: GrantedThreads(handler, settler, concurrency)
        return MixedRunner(handler, settler, concurrency, {kind: runners[kind]() for kind in kinds - {"async"}})
