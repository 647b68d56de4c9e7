"""Pipelines: handlers that are composed of stages."""

from __future__ import annotations

from redis_worker.pipeline.errors import Rejected, StageFailed
from redis_worker.pipeline.formats import Formats
from redis_worker.pipeline.pipeline import Pipeline
from redis_worker.pipeline.several import Sinks
from redis_worker.pipeline.stage import Emit, stage
from redis_worker.pipeline.windows import Window, Windows
from redis_worker.vocabulary.stage_status import StageStatus

__all__ = [
    "Emit",
    "Formats",
    "Pipeline",
    "Rejected",
    "Sinks",
    "StageFailed",
    "StageStatus",
    "Window",
    "Windows",
    "stage",
]
