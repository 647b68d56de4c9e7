"""`python -m deploy.checks.rules`: writes the alerts once more, for the Prometheus operator."""

from __future__ import annotations

from textwrap import indent

from deploy.checks.running import DEPLOY

WRITTEN = DEPLOY / "kubernetes" / "monitoring" / "rules.yaml"

_HEAD = """\
# Made of deploy/prometheus/alerts.yml by `make lock`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: redis-worker
spec:
"""


def rules() -> str:
    """Return the object with the alerts."""
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    return _HEAD + indent(alerts[alerts.index("groups:") :], "  ")


if __name__ == "__main__":
    WRITTEN.write_text(rules())
