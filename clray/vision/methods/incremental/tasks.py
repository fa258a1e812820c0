"""The task of a batch, for methods that need to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.errors import DeclarationError

if TYPE_CHECKING:
    from clray.vision.stream import Batch


def task_of(method: str, batch: Batch) -> int:
    """The experience that a batch belongs to.

    Raises:
        DeclarationError: the stream hides it.
    """
    if batch.experience is None:
        raise DeclarationError(f"{method}: it must know which task a batch belongs to, and this benchmark hides that")
    return batch.experience
