"""Run a block as a program whose top level may await, as the prompt of `python -m asyncio` does."""

import ast
import asyncio
import inspect
import sys
from pathlib import Path

block = Path(sys.argv[1])
code = compile(block.read_text(encoding="utf-8"), block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
waiting = eval(code, {"__name__": "block"})
if inspect.isawaitable(waiting):

    async def run() -> None:
        await waiting

    asyncio.run(run())
