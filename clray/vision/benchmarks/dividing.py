"""The rule that classes divide into tasks without a rest."""

from __future__ import annotations


def refuse_rest(classes: int, tasks: int, rest: int = 0, what: str = "classes") -> None:
    """Check that classes divide into tasks.

    Args:
        rest: tasks that have none of these classes.

    Raises:
        ValueError: they do not; it names the numbers of tasks that are allowed.
    """
    if tasks - rest < 1 or classes % (tasks - rest):
        allowed = ", ".join(str(n + rest) for n in range(1, classes + 1) if classes % n == 0)
        after = f" after the first {rest}" if rest else ""
        raise ValueError(f"tasks: {classes} {what} do not divide into {tasks - rest} tasks{after}; allowed: {allowed}")
