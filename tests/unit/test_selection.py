"""Lists of what runs: one without names means all, and where nothing would run the reason is told."""

from __future__ import annotations

import pytest

from redis_worker import ConfigurationError, Supervisor
from redis_worker.file.mistakes import FileMistakes
from redis_worker.file.plan import Plan
from redis_worker.file.reading import read_plan

PARTS = """
[daemons]
%s
[daemons.one]
run = "m:f"
[daemons.two]
run = "m:f"
[cron]
%s
[cron.three]
schedule = "* * * * *"
job = "m:f"
[cron.four]
schedule = "* * * * *"
job = "m:f"
"""


def plan_of(text: str) -> Plan:
    return read_plan("workers.toml", text, environment={}, default_url=lambda: "redis://there")


def running(worker: str = "", daemons: str = "", cron: str = "") -> list[str]:
    return [part.name for part in plan_of(f"[worker]\n{worker}\n{PARTS % (daemons, cron)}").parts]


def test_an_empty_list_means_all_wherever_it_stands() -> None:
    everything = ["one", "two", "three", "four"]
    assert running() == everything
    assert running("only = []", "jobs = []", "jobs = []") == everything


def test_jobs_and_daemons_are_chosen_by_name() -> None:
    assert running(daemons='jobs = ["two"]', cron='jobs = ["three"]') == ["two", "three"]
    assert running(daemons='jobs = ["two"]') == ["two", "three", "four"]
    plan = plan_of(PARTS % ('jobs = ["two"]', ""))
    assert plan.left_out == (("daemons.one", "not in daemons.jobs"),)


def test_a_name_that_is_none_is_a_mistake() -> None:
    with pytest.raises(FileMistakes) as caught:
        plan_of(PARTS % ('jobs = ["tow"]', 'jobs = ["thre"]'))
    assert str(caught.value).splitlines() == [
        "workers.toml:3: daemons.jobs[0]: unknown daemon 'tow', did you mean two?",
        "workers.toml:9: cron.jobs[0]: unknown job 'thre', did you mean three?",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "workers.toml: nothing would run; the file describes no part"),
        (
            '[daemons.one]\nenable = false\nrun = "m:f"\n[daemons.two]\nenable = false\nrun = "m:f"',
            "workers.toml: nothing would run; left out: daemons.one (enable = false), daemons.two (enable = false)",
        ),
        (
            "".join(f'[daemons.d{number}]\nenable = false\nrun = "m:f"\n' for number in range(7)),
            "daemons.d4 (enable = false) and 2 more",
        ),
        ("[worker]\nenable = false", "worker.enable is false: nothing runs"),
        ('[worker]\nmode = "embedded"\n[daemons.one]\nrun = "m:f"', 'worker.mode is "embedded": nothing runs here'),
    ],
)
async def test_a_supervisor_that_serves_nothing_says_why(text: str, reason: str) -> None:
    plan = plan_of(text)
    assert reason in (plan.why_nothing(standalone=True) or "")
    with pytest.raises(ConfigurationError) as caught:
        await Supervisor(plan).serve()
    assert reason in str(caught.value)


def test_a_plan_that_runs_something_has_no_reason() -> None:
    assert plan_of('[daemons.one]\nrun = "m:f"').why_nothing(standalone=True) is None
    assert plan_of('[worker]\nmode = "standalone"\n[daemons.one]\nrun = "m:f"').why_nothing(standalone=True) is None
