"""What a command is about: a reproduction or a sweep, and the store and terminal it is shown with."""

from __future__ import annotations

import queue
import sys
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clray.errors import DeclarationError, StoreError
from clray.folders import is_file

if TYPE_CHECKING:
    from rich.console import Console

    from clray.analysis.tables import Comparison
    from clray.results import Store
    from clray.spec import Reproduction, Selection, Sweep

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """What a command is about: a reproduction with its sweeps, or one sweep."""

    name: str
    sweeps: dict[str, Sweep]
    reproduction: Reproduction | None
    selection: Selection
    file: str = ""
    """What was typed: the name, or a sweep file's path."""

    @property
    def comparable(self) -> bool:
        return all(sweep.comparable for sweep in self.sweeps.values())

    def compare(self, store: Store) -> Comparison:
        from clray.analysis.tables import compare

        return compare(self.name, self.sweeps, store, self.reproduction)


def selected(quick: bool, only: list[str] | None, seeds: str | None, set_: list[str] | None) -> Selection:
    """What ``--quick --only --seeds --set`` ask for.

    Raises:
        DeclarationError: the seeds are no numbers.
    """
    from clray.spec import Selection

    variants = tuple(name for item in only or () for name in item.split(",") if name)
    try:
        numbers = tuple(int(seed) for seed in seeds.split(",")) if seeds else ()
    except ValueError:
        raise DeclarationError(f"--seeds {seeds}: expected whole numbers with commas between, such as 0,1,2") from None
    return Selection(quick, variants, numbers, tuple(set_ or ()))


def target_of(name: str, selection: Selection) -> Target:
    """The reproduction, sweep or sweep file of this name.

    Raises:
        DeclarationError: there is none, or it is wrong.
    """
    from clray.documents import one_of
    from clray.spec import load_reproduction, load_sweep, reproduction_names, sweep_names

    if name in reproduction_names():
        reproduction = load_reproduction(name)
        return Target(name, reproduction.sweeps(selection), reproduction, selection, name)
    if not is_file(Path(name)) and name.removeprefix("sweeps/").removesuffix(".yaml") not in sweep_names():
        raise DeclarationError(
            f"{name}: no such reproduction, sweep or file; {one_of(name, [*reproduction_names(), *sweep_names()])}"
        )
    sweep = load_sweep(name, selection)
    return Target(sweep.name, {sweep.name: sweep}, None, selection, name)


def terminal() -> Console:
    """What is printed on."""
    from rich.console import Console

    # Bound to today's stdout: while Ray runs, what others print is sent elsewhere.
    return Console(file=sys.stdout, highlight=False)


ANSWER_SECONDS = 20.0
"""The time that an object store has to answer a first question."""
_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")


def store_at(uri: str) -> Store:
    """The results store that ``--results`` names.

    Raises:
        StoreError: no file system serves this URI, or nothing answers there in time.
    """
    from clray.results import Store

    if "://" not in uri:
        return Store(uri)
    address = urllib.parse.urlsplit(uri)
    if address.scheme in _BUCKETS and not address.netloc:
        raise StoreError(f"{uri}: names no bucket: expected {address.scheme}://BUCKET/FOLDER")
    return _in_time(uri, lambda: _answering(uri))


def _answering(uri: str) -> Store:
    """A store that has answered once: without credentials or a bucket, libraries go on trying for many minutes."""
    from clray.results import Store

    store = Store(uri)
    store.finished()
    return store


def require_writable(store: Store) -> None:
    """See once, before a launch, that the store can be written: else every trial would find out for itself.

    Raises:
        StoreError: it cannot.
    """

    _in_time(store.uri, store.require_writable)


def _in_time(uri: str, ask: Callable[[], T]) -> T:
    """What ``ask()`` returns or raises.

    Raises:
        StoreError: it has not answered in time. It is left to itself then, in its own thread.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise StoreError(
            f"{uri}: no answer within {ANSWER_SECONDS:g} seconds: see that the bucket exists, that this machine reaches "
            "it, and that there are credentials for it"
        ) from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]
