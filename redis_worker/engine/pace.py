"""The number of tasks to claim ahead of the free slots."""

from __future__ import annotations

# Tasks claimed beyond the free slots should start within this time, in seconds: otherwise a fast
# task waits behind a slow one here while another worker idles.
HORIZON = 0.020
# The same where slow tasks run: the next one may be slow too.
_MIXED = HORIZON / 8
_MOST = 2048
_DECAY = 0.9
# Run time, in seconds, that is never long: threads wait up to 5 ms for the interpreter.
_SHORT = HORIZON / 2


class Pace:
    """A measure of recent run times: the longest, decaying with each task."""

    def __init__(self) -> None:
        self.longest = 0.0
        """In seconds."""

    def note(self, seconds: float) -> None:
        """Record the run time of a task. A slow one counts as just slow: it predicts little of the others."""
        longest = self.longest * _DECAY
        if seconds > longest:  # max() takes twice as long
            longest = seconds if seconds <= _SHORT else min(seconds, self.long)
        self.longest = longest

    @property
    def long(self) -> float:
        """The run time, in seconds, from which a task counts as slow: it takes twice as long as those before."""
        return max(_SHORT, 2 * self.longest)

    def ahead(self, parallel: int, is_mixed: bool = False) -> int:
        """Return the number of tasks beyond `parallel` slots that will start within the horizon.

        It is shorter if what runs `is_mixed`: slow tasks hold other slots.
        """
        if self.longest <= 0.0:
            return 0
        return min(_MOST, int((_MIXED if is_mixed else HORIZON) * parallel / self.longest))


class MeanPace(Pace):
    """The same by the mean run time, for tasks that leave as soon as the one before them turns out to be long.

    A process that computes is interrupted for several run times at once: its longest says little about the next ones.
    """

    def note(self, seconds: float) -> None:
        self.longest = self.longest * _DECAY + seconds * (1 - _DECAY) if self.longest else seconds
