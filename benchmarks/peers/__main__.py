"""The command `python -m benchmarks.peers`: measures this worker and others, and writes the tables of the pages."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from redis import Redis

from benchmarks.peers.catalog import PEERS, Peer
from benchmarks.peers.environments import Environment, NotInstalled
from benchmarks.peers.measuring import AFTER_KILL, RUNNING, WAITING, Rates, Survived, survived
from redis_worker.embedded import EmbeddedServer

_BEGIN, _END = "<!-- peers -->", "<!-- /peers -->"
# A row of a table whose last cell is a rate: its name is in the first cell.
_ROW = re.compile(r"^(?P<rest>\| \**(?P<name>[\w ]+?)\** \|.*)\| (?:[\d,]+|\u2013) \|$", re.MULTILINE)
_TASKS = RUNNING + WAITING


def main() -> int:
    """Measure the chosen peers; print the table, or write it into a file."""
    options = _options()
    environments, absent = _environments(options.peer)
    progress(f"kill -9: all at the same time, {AFTER_KILL:g} s")
    with ThreadPoolExecutor(len(environments) or 1) as together:
        kills = dict(zip(environments, together.map(survived, environments), strict=True))
    measured = [
        Rates(environment, task, command)
        for environment in environments
        for task, command in environment.peer.workers.items()
    ]
    for number in range(options.rounds):
        for rates in measured:
            if not rates.failure:
                rates.measure()
            shown = rates.failure or f"{rates.rates[-1]:,.0f}/s"
            progress(f"round {number + 1} of {options.rounds}: {rates.environment.peer.title}, {rates.task}: {shown}")
    text = f"{_machine(options.rounds)}\n\n{_table(measured, kills, absent)}"
    print(text)
    if options.write:
        write(options.write, text)
    for page in options.rates:
        write_rates(page, measured)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Measure this worker and others for Redis (docs/benchmarks.md)."
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("peer", nargs="*", help=f"some of {', '.join(dict.fromkeys(names))} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="drains of each (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table into FILE, between its markers")
    parser.add_argument(
        "--rates",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="write the best rate of each worker into the last column of the table of workers in FILE",
    )
    options = parser.parse_args()
    if unknown := set(options.peer) - set(names):
        parser.error(f"unknown peer {unknown.pop()!r}")
    return options


def _environments(names: Sequence[str]) -> tuple[list[Environment], list[tuple[Peer, str]]]:
    environments: list[Environment] = []
    absent: list[tuple[Peer, str]] = []
    for peer in PEERS:
        if not names or peer.name in names:
            progress(f"environment of {peer.title}")
            try:
                environments.append(Environment(peer))
            except NotInstalled as error:
                absent.append((peer, str(error)))
    return environments, absent


def _machine(rounds: int) -> str:
    with EmbeddedServer() as server, Redis.from_url(server.url) as redis:
        version = redis.info("server")["redis_version"]
    return (
        f"{time.strftime('%-d %B %Y')}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Redis {version} on the same machine, Python {platform.python_version()}. Tasks add three integers, results "
        f"are stored; medians of {rounds} rounds. CPU: of worker and server, for each task. `kill -9`: a worker with "
        f"default settings had {RUNNING} tasks at work and {WAITING} queued, and a new one had "
        f"{AFTER_KILL:g} s to answer them."
    )


def _table(
    measured: Sequence[Rates], kills: dict[Environment, Survived | str], absent: Sequence[tuple[Peer, str]]
) -> str:
    lines = ["| worker | task | tasks/s | CPU, us | after `kill -9` | settings |", "|---|---|---:|---:|---:|---|"]
    for rates in sorted(measured, key=lambda rates: -rates.rate if rates.rates else 0.0):
        environment = rates.environment
        if rates.failure:
            figures = ("-", f"failed: {' '.join(rates.failure.split())[:80]}")
        else:
            worker, server = map(_median, zip(*rates.costs, strict=True))
            figures = (f"{rates.rate:,.0f}", f"{worker:,.0f} + {server:,.0f}")
        title = f"{environment.peer.title} {environment.version()}"
        cells = (title, rates.task, *figures, _survival(kills[environment]), environment.peer.settings)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {peer.title} | - | - | - | - | not measured: {reason} |" for peer, reason in absent]
    return "\n".join(lines)


def _survival(found: Survived | str) -> str:
    if isinstance(found, str):
        return f"not measured: {' '.join(found.split())[:80]}"
    time = f", after {found.seconds:.0f} s" if found.answered == _TASKS else ""
    return f"{found.answered} of {_TASKS}{time}"


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def write(path: Path, text: str) -> None:
    """Write `text` between the markers of a file. Raises ValueError if it has none."""
    content = path.read_text(encoding="utf-8")
    if _BEGIN not in content or _END not in content:
        raise ValueError(f"{path} has no {_BEGIN} … {_END}")
    pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{_BEGIN}\n{text}\n{_END}", content), encoding="utf-8")


def write_rates(path: Path, measured: Sequence[Rates]) -> None:
    """Write the best rate of each worker into the last cell of the row that begins with its name."""
    best: dict[str, float] = {}
    for rates in measured:
        if not rates.failure:
            name = rates.environment.peer.title.partition(",")[0].casefold()
            best[name] = max(rates.rate, best.get(name, 0.0))

    def with_rate(row: re.Match[str]) -> str:
        rate = best.get(row["name"].casefold())
        return row[0] if rate is None else f"{row['rest']}| {rate:,.0f} |"

    content = path.read_text(encoding="utf-8")
    path.write_text(_ROW.sub(with_rate, content), encoding="utf-8")


def progress(text: str) -> None:
    """Print progress to stderr, apart from the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
