"""A fresh context for each task: what one sets, in context variables or in `decimal`, no other one sees."""

from __future__ import annotations

import decimal
from contextvars import Context, copy_context


class Contexts:
    """Copies of the context that this object was made in."""

    def __init__(self) -> None:
        self._base = Context()
        self._decimal: decimal.Context | None = None
        for variable, value in copy_context().items():
            # The variable holds an object that decimal changes in place, so that copies of a context share it.
            if isinstance(value, decimal.Context):
                self._decimal = value.copy()
            else:
                self._base.run(variable.set, value)

    def fresh(self) -> Context:
        """Return a context for one task. The hot path."""
        context = self._base.copy()
        if self._decimal is not None:
            context.run(decimal.setcontext, self._decimal.copy())
        return context
