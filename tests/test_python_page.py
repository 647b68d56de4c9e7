"""docs/python.md: every public name stands there, and its programs run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import redis_worker
from redis_worker.embedded import EmbeddedServer
from redis_worker.mock_kafka import MockKafka
from tests.support import PATIENCE, ROOT, wait_until

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PROGRAMS = [name for name in BLOCKS if name.endswith(".py")]


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


def test_every_block_is_a_program_with_a_name() -> None:
    assert len(re.findall("^```(?:python|toml)$", PAGE, re.MULTILINE)) == len(BLOCKS)


@pytest.mark.parametrize("name", redis_worker.__all__)
def test_every_public_name_stands_in_a_program(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", BLOCKS[program]) for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_programs_run(
    program: str, server: EmbeddedServer, redis: object, mock_kafka: MockKafka, tmp_path: Path
) -> None:
    servers = {'"redis://localhost"': f'"{server.url}"', '"localhost:9092"': f'"{mock_kafka.brokers}"'}
    for name, text in BLOCKS.items():
        compile(text, name, "exec") if name.endswith(".py") else None
        ours = re.sub("|".join(servers), lambda found: servers[found[0]], text)
        (tmp_path / name).write_text(ours, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if "serve()" in BLOCKS[program]:
            status = Path(f"/proc/{process.pid}/status")
            caught = re.compile(r"SigCgt:\s*(\w+)")
            # SIGTERM is the 15th: it has a handler by now
            await wait_until(lambda: int(caught.findall(status.read_text())[0], 16) & 1 << 14, "the program to serve")
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()
