"""Opens stores within a time limit: libraries of object stores retry for many minutes where nothing answers."""

from __future__ import annotations

import queue
import threading
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clray.errors import StoreError

if TYPE_CHECKING:
    from clray.store import Store

ANSWER_SECONDS = 20.0
"""The time within which an object store must answer a first request."""
_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")


def opened(uri: str) -> Store:
    """The store at a path or URI. A store at a URI has answered a first request.

    Raises:
        StoreError: no file system serves this URI, it names no bucket, or nothing answers there in time.
    """
    from clray.store import Store

    if "://" not in uri:
        return Store(uri)
    address = urllib.parse.urlsplit(uri)
    if address.scheme in _BUCKETS and not address.netloc:
        raise StoreError(f"{uri}: names no bucket: expected {address.scheme}://BUCKET/FOLDER")

    def ask() -> Store:
        store = Store(uri)
        store.finished()
        return store

    return _in_time(f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}", ask)


def require_writable(store: Store) -> None:
    """Check once, before a launch, that the store can be written; otherwise every trial would fail on its own.

    Raises:
        StoreError: it cannot.
    """
    _in_time(store.path(), store.require_writable)


def _in_time(place: str, ask: Callable[[], Any]) -> Any:
    """The answer of ``ask()``, or the error that it raised.

    Raises:
        StoreError: there is no answer in time. The waiting thread is then left running.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

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
            f"{place}: no answer within {ANSWER_SECONDS:g} seconds: see that the bucket exists, that this machine "
            "reaches it, and that there are credentials for it"
        ) from None
    if error is not None:
        raise error
    return answer
