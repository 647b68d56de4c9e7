"""The command `python -m mutation`: tries the mutants, and prints which tests have found them."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from pathlib import Path
from queue import SimpleQueue

from mutation.mutants import REQUIRED, Mutant, WrongList, mutants
from mutation.trial import Copy, Verdict


def main() -> int:
    """Try the chosen mutants. Return 0, 1 if too few die or one lives unexplained, or 2 if the list is wrong."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that tests and copies do not stay behind
    try:
        chosen = _chosen(options.name)
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
            verdicts, errors = _tried(chosen, Path(folder), options)
    except WrongList as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    verdicts.sort(key=lambda verdict: chosen.index(verdict.mutant))
    print(_table(verdicts))
    core = [verdict for verdict in verdicts if verdict.mutant.core]
    dead = sum(verdict.dead for verdict in core)
    print(f"\n{sum(verdict.dead for verdict in verdicts)} of {len(verdicts)} mutants die", end="")
    print(f"; {dead} of {len(core)} in scripts, queue, settler, claimer, recovery and retry.")
    unexplained = [verdict.mutant.name for verdict in verdicts if not (verdict.dead or verdict.mutant.alive)]
    if unexplained:
        print(f"Alive without an explanation: {', '.join(unexplained)}.")
    for wrong in errors:
        print(f"Error: {wrong}", file=sys.stderr)
    return 2 if errors else int(bool(unexplained) or dead < REQUIRED * len(core))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mutation", description="Break promises on purpose; tests must notice (docs/reliability.md)."
    )
    parser.add_argument("name", nargs="*", help="mutants, by name or pattern (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="mutants tried at a time (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for each (default: %(default)g)")
    return parser.parse_args()


def _chosen(patterns: Sequence[str]) -> list[Mutant]:
    """Return the mutants that any of `patterns` names. Raises WrongList for one that names none."""
    every = mutants()
    for pattern in patterns:
        if not any(fnmatchcase(mutant.name, pattern) for mutant in every):
            raise WrongList(f"no mutant is named {pattern!r}")
    return [mutant for mutant in every if not patterns or any(fnmatchcase(mutant.name, it) for it in patterns)]


def _tried(
    chosen: Sequence[Mutant], folder: Path, options: argparse.Namespace
) -> tuple[list[Verdict], list[WrongList]]:
    """Return the verdicts, and the errors of mutants that cannot be tried; report progress on standard error."""
    copies = [Copy(folder / str(number)) for number in range(options.processes)]
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def try_out(mutant: Mutant) -> Verdict:
        copy = free.get()
        try:
            return copy.try_out(mutant, options.limit)
        finally:
            free.put(copy)

    verdicts, errors = list[Verdict](), list[WrongList]()
    with ThreadPoolExecutor(options.processes) as pool:
        trials = [pool.submit(try_out, mutant) for mutant in chosen]
        try:
            for count, trial in enumerate(as_completed(trials), 1):
                try:
                    verdict = trial.result()
                except WrongList as error:
                    errors.append(error)
                    continue
                verdicts.append(verdict)
                state, name = "dead" if verdict.dead else "ALIVE", verdict.mutant.name
                print(f"{count}/{len(trials)} {state:5} {name}: {verdict.seconds:.1f} s", file=sys.stderr)
        finally:
            for trial in trials:
                trial.cancel()
            for copy in copies:
                copy.interrupt()
    return verdicts, errors


def _table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a table in Markdown."""
    lines = ["| mutant | file | promise it breaks | found by |", "|---|---|---|---|"]
    for verdict in verdicts:
        mutant = verdict.mutant
        by = f"`{verdict.by.rpartition('::')[2] or verdict.by}`" if verdict.dead else f"alive: {mutant.alive or '?'}"
        lines.append(f"| {mutant.name} | {mutant.file} | {mutant.promise} | {by} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
