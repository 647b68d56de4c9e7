"""The alerts: held to their own tests by promtool."""

from __future__ import annotations

import yaml

from deploy.checks.running import DEPLOY, CheckFailed, need, run, say

_FOLDER = DEPLOY / "prometheus"


def check_alerts() -> None:
    """Check the rules and Compose's configuration, and run the tests of the rules. Raises CheckFailed."""
    need(("promtool",), ("prometheus",))
    run("promtool", "check", "rules", _FOLDER / "alerts.yml")
    run("promtool", "test", "rules", "alerts_test.yml", cwd=_FOLDER)
    run("promtool", "check", "config", "--syntax-only", DEPLOY / "compose" / "prometheus.yml")
    groups = yaml.safe_load((_FOLDER / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    tests = yaml.safe_load((_FOLDER / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    if alerts != fired:
        raise CheckFailed(f"prometheus: no test lets these alerts fire: {', '.join(sorted(alerts - fired))}")
    say(f"prometheus: {len(alerts)} alerts, each of which fires in a test and is silent in another")
