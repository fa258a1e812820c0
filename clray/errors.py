"""The errors of wrong input: each is one message that names the place and the allowed values.

The command line prints the message alone and exits with ``exit_code``; a traceback means a bug in clray.
"""

from __future__ import annotations


class ClrayError(Exception):
    """The base of every error that is not clray's own fault."""

    exit_code = 1


class DeclarationError(ClrayError):
    """A sweep file, a reproduction file, a flag or a hyper-parameter is wrong."""

    exit_code = 2


class DataError(ClrayError):
    """A data file is missing, foreign or torn."""


class StoreError(ClrayError):
    """The results store cannot be read or written, or holds something that does not belong there."""


class CheckpointError(StoreError):
    """A checkpoint is torn, or belongs to another trial."""


class StateError(ClrayError):
    """A trial's state or record is such that it could not be read back, so that it is not written either."""


class ClusterError(ClrayError):
    """Ray cannot be reached, or has no room for a trial."""


class OtherCodeError(ClrayError):
    """The code of this process is not the code that the trial's launch was planned with."""


class Diverged(ClrayError):
    """A trial's loss or weights are not finite numbers any more; raised by ``Training.advance``.

    The trial ends there: its record keeps what was measured before, and says where it diverged.

    Attributes:
        step: training examples (episodes on their track) seen so far.
        task: the task that was being learned, from 0.
        what: the numbers that are not finite, such as ``weights`` or ``loss``.
    """

    def __init__(self, step: int, task: int, what: str) -> None:
        super().__init__(f"diverged: {what} not finite after {step} examples, in task {task + 1}")
        self.step, self.task, self.what = step, task, what
