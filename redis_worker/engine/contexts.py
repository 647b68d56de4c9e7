"""A fresh context for each task: changes to context variables or to `decimal` stay in the task."""

from __future__ import annotations

import decimal
from contextvars import Context, copy_context


class Contexts:
    """A factory of copies of the context that it was made in."""

    def __init__(self) -> None:
        self._base = Context()
        self._decimal: decimal.Context | None = None
        for variable, value in copy_context().items():
            # decimal changes this object in place, so that copies of a context would share it.
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

    def is_changed(self, context: Context) -> bool:
        """Return False if no variable was set in `context` since `fresh` returned it. The hot path."""
        try:
            return self._decimal is not None or context != self._base
        except Exception:  # values that differ are compared, and their comparison may raise
            return True
