"""python -m tests.fuzz [TARGET…] [--inputs N] [--seed S] [--first N]: exit 1 and the input, if one does harm."""

from __future__ import annotations

import argparse
import os
import sys

from tests.fuzz import TARGETS
from tests.fuzz.running import run, show


def main() -> int:
    """Run the targets, one after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed readers of foreign bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--inputs", type=int, default=20_000, help="for all targets together")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="default: a random one")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    whole = sum(target.share for target in chosen)
    print(f"seed {options.seed}", flush=True)
    failed = 0
    for target in chosen:
        count = max(1, round(options.inputs * target.share / whole))
        if failure := run(target(), count, options.seed, options.first):
            show(failure)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
