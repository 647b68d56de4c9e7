"""The failures of a stage: each names the stage, and the field where that is known."""

from __future__ import annotations

import re

from redis_worker.vocabulary.error_text import error_text
from redis_worker.vocabulary.errors import RedisWorkerError, Reject, Retry

# msgspec ends the text of a ValidationError so: "Expected `int`, got `str` - at `$.cases`".
_PLACE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`.*", re.DOTALL)


class Rejected(Reject):
    """The rejection of a message by a stage: it becomes a dead letter without a retry.

    A stage raises it with the field that is wrong; the pipeline adds the name of the stage.
    """

    def __init__(self, reason: str, *, field: str | None = None, stage: str | None = None) -> None:
        named = f"stage {stage}: " if stage else ""
        super().__init__(f"{named}field {field}: {reason}" if field else f"{named}{reason}")
        self.reason = reason
        self.field = field
        self.stage = stage


class StageFailed(RedisWorkerError):
    """An error that a stage did not raise on purpose. The message is retried, as its worker does with any error."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(f"stage {stage}: {error_text(error, named=True)}")
        self.stage = stage


def failure(stage: str, error: BaseException) -> BaseException:
    """Return the failure of a message for the `error` that `stage` raised. A Retry stays what it is."""
    if isinstance(error, Retry):
        return error
    found: BaseException
    if isinstance(error, Rejected):
        found = Rejected(error.reason, field=error.field, stage=error.stage or stage)
    elif isinstance(error, Reject):
        found = Rejected(error_text(error), stage=stage)
    elif is_malformed(error):
        found = malformed(error, stage)
    else:
        found = StageFailed(stage, error)
    found.__cause__ = error
    return found


def is_malformed(error: BaseException) -> bool:
    """Return True for msgspec's errors of decoding: another try would end in the same way."""
    return any(base.__module__ == "msgspec" and base.__name__ == "DecodeError" for base in type(error).__mro__)


def malformed(error: BaseException, stage: str | None = None) -> Rejected:
    """Return the rejection for an error of msgspec, with the field that its text names."""
    text = error_text(error)
    place = _PLACE.fullmatch(text)
    path = [place[2]] if place and place[2] else []
    if missing := _MISSING.fullmatch(text):
        return Rejected("it is missing", field=".".join([*path, missing[1]]), stage=stage)
    return Rejected(place[1] if place else text, field=path[0] if path else None, stage=stage)
