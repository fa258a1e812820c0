"""The console that every command prints on: text is text, whatever brackets, colons or escape sequences it holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from clray.output import arriving, shown, visible


class PlainConsole(Console):
    """Standard output as ``rich`` lays it out, without markup, emoji codes or highlighting; styles are arguments.

    A notebook gets text, too: ``rich`` would show each line there as a page of its own, whatever the file.

    Args:
        file: what is written to in place of standard output.
        how: further arguments of ``rich.console.Console``, such as ``width``.
    """

    def __init__(self, file: IO[str] | None = None, **how: Any) -> None:
        # Bound to today's stdout: while Ray runs, what others print is sent elsewhere.
        fixed: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False}
        super().__init__(file=file or sys.stdout, **fixed, **how)

    def print(self, *objects: Any, **how: Any) -> None:
        """Raises OutputLost where standard output cannot be written."""
        with arriving():
            super().print(*objects, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Before the layout, so that columns are as wide as what is shown in them."""
        return super().render_str(shown(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """After the layout, for texts that were no strings any more."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)
