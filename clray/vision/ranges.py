"""The ranges of the numbers in this track's settings. A number outside its range is refused when a sweep is planned.

The ranges are wide enough for any experiment. Without an upper end a typing error such as 10**12 memories would be
planned, and the trial would run out of memory or never end.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1, le=10_000_000)]
"""A number of images or examples: in a task, in a batch, in a memory."""
PerClass = Annotated[int, Field(ge=1, le=100_000)]
"""The number of images kept of each class of each task."""
Tasks = Annotated[int, Field(ge=1, le=10_000)]
Passes = Annotated[int, Field(ge=1, le=100_000)]
"""Times that something is gone through: epochs, cycles, batches an example."""
Hidden = Annotated[list[Annotated[int, Field(ge=1, le=100_000)]], Field(min_length=1, max_length=100)]
"""Widths of a perceptron's hidden layers."""
Rate = Annotated[float, Field(gt=0, le=1e38)]
"""Learning rates and other factors that must not be zero; 1e38 is about the largest that float32 holds."""
Weight = Annotated[float, Field(ge=0, le=1e38)]
"""Factors that may be zero."""
