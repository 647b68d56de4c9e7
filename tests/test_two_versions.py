"""The workers of the parent commit and of today on one queue and one topic, killed and frozen: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import ROOT
from tests.two_versions import EARLIER, NoHistory, mixed, sources_of, version_at

# The last commit whose workers hold tasks in lists, without numbers.
WITHOUT_NUMBERS = "140e88e"
# The last commit whose workers hold all tasks in one hash, however large.
ONLY_A_HASH = "06bfe26"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("commit", [EARLIER, ONLY_A_HASH, WITHOUT_NUMBERS])
async def test_the_ledger_is_kept_by_two_versions_side_by_side(commit: str) -> None:
    try:
        with sources_of(commit) as earlier:
            assert version_at(earlier).startswith(f"{earlier}/")
            assert version_at(ROOT).startswith(f"{ROOT}/")
        run = await mixed(20.0, 1, commit)
    except NoHistory as error:
        pytest.skip(f"{error}; clone with the history to compare with it")
    assert len(run.queue_ids) > 100
    assert sum(count for event, count in run.events.items() if event.startswith("kill")) > 0


def test_a_commit_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(NoHistory, match="does not give the commit no-such-commit: fatal:"),
        sources_of("no-such-commit"),
    ):
        pass
