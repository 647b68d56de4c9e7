"""Pipelines: handlers that are composed of stages."""

from __future__ import annotations

from redis_worker.pipeline.errors import Rejected, StageFailed
from redis_worker.pipeline.formats import Formats
from redis_worker.pipeline.pipeline import Pipeline
from redis_worker.pipeline.stage import Emit, StageStatus, stage

__all__ = ["Emit", "Formats", "Pipeline", "Rejected", "StageFailed", "StageStatus", "stage"]
