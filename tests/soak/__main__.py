"""python -m tests.soak [--minutes M] [--seed S]: exit 1 if anything grows, is lost or stops."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from tests.soak.driver import Soak
from tests.soak.measuring import Sample, growths


def main() -> int:
    """Run a soak and print its samples and the verdict."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Load, faults, and what is left of both.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="default: a random one")
    parser.add_argument("--leak", choices=["memory", "descriptors", "threads"], help="leak on purpose")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    soak = Soak(options.seed, options.leak)
    try:
        asyncio.run(_run(soak, options.minutes * 60))
    except AssertionError as error:
        print(f"failed after {len(soak.samples)} rounds and {soak.faults[-1:]}: {error}", flush=True)
        return 1
    found = growths(soak.samples)
    grows = any(growth.is_growth for growth in found)
    print(
        f"{'GROWS' if grows else 'flat'}: {len(soak.samples)} rounds, {soak.pushed:,} tasks pushed, 0 lost, "
        f"{soak.scraped} scrapes; " + ", ".join(map(str, found)),
        flush=True,
    )
    return 1 if grows else 0


async def _run(soak: Soak, seconds: float) -> None:
    printing = asyncio.create_task(_print(soak))
    try:
        await soak.run(seconds)
    finally:
        printing.cancel()


async def _print(soak: Soak) -> None:
    print("".join(f"{name:>13}" for name in Sample._fields), flush=True)
    shown = 0
    while True:
        for sample, fault in zip(soak.samples[shown:], soak.faults[shown:], strict=False):
            print("".join(f"{value:13.1f}" for value in sample), f" {fault}", flush=True)
        shown = len(soak.samples)
        await asyncio.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
