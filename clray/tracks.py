"""The tracks: what each offers to the rest of clray, and where it is."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clray.errors import DeclarationError

if TYPE_CHECKING:
    from clray.spec import Trial
    from clray.training import Training


@dataclass(frozen=True)
class Kind:
    """Benchmarks of one kind, and the methods that learn on them.

    Attributes:
        what: how they learn, in words; may be empty where a track has one kind.
        benchmarks: their names.
        methods: name to ``module:Class`` below the track's ``methods/``.
        registry: what that mapping is called in ``methods/__init__.py``.
        sweeps: of those that ship with clray, the ones to start one's own from: for a method the first that has it. The
            first of all needs no file; together they have every method.
    """

    what: str
    benchmarks: tuple[str, ...]
    methods: Mapping[str, str]
    registry: str
    sweeps: tuple[str, ...]


class Form(Protocol):
    """One form in which a data set is published.

    Attributes:
        files: by their paths.
        partial: why this is not the whole data set, or not the published one; empty where it is.
    """

    @property
    def files(self) -> Mapping[str, Any]: ...

    @property
    def partial(self) -> str: ...


class Published(Protocol):
    """A data set as published.

    Attributes:
        origin: where it comes from, for people: an address.
        advice: what to know where it is not here.
        download: the form that ``fetch`` brings, if there is one.
    """

    @property
    def origin(self) -> str: ...

    @property
    def advice(self) -> str: ...

    @property
    def download(self) -> Form | None: ...


class Found(Protocol):
    """A data set that lies on this machine.

    Attributes:
        source: ``CLRAY_DATA``, ``cache``, or ``grammar`` where it needs no file; then there is no more to say of it.
        folder: where it lies.
        form: in which form.
    """

    @property
    def source(self) -> str: ...

    @property
    def folder(self) -> Path | None: ...

    @property
    def form(self) -> Form | None: ...


class Sources(Protocol):
    """A track's data sets: its module ``data``."""

    DATASETS: Mapping[str, Published]
    """By name."""

    def find(self, name: str) -> Found | None:
        """What is here of a data set, found without reading it.

        Raises:
            DataError: some of its files are here and others are not, or ``CLRAY_DATA`` names no folder.
        """
        ...

    def beside_it(self, name: str) -> str:
        """Which other files lie where a data set's were looked for and not found, in words; empty where none do."""
        ...

    def fetch(self, name: str) -> Path:
        """Download it into the cache, checked. Returns the folder.

        Raises:
            DataError: it could not be had.
        """
        ...

    def verify(self, name: str) -> dict[str, Any]:
        """Read and check the files that a trial would read. Returns ``source`` and ``fingerprint``, and where there is
        something to be said against it ``partial`` or ``unverified``.

        Raises:
            DataError: there are no files, or they are foreign.
        """
        ...


class Track(Protocol):
    """What a track's package offers to the rest of clray: the module named in ``TRACKS``."""

    sources: Sources
    """The track's data sets."""

    PRECISIONS: tuple[str, ...]
    """Of ``clray.spec.Precision``, those that its trials can have."""

    def kinds(self) -> list[Kind]:
        """Its benchmarks and methods, those together that go together."""
        ...

    def resolve(self, declared: dict[str, Any]) -> dict[str, Any]:
        """Check a variant's settings, and fill in the defaults.

        Args:
            declared: ``benchmark``, ``model`` and ``hyperparameters`` (mappings), ``method``, and what the sweep says
                of all its variants: ``evaluate``, ``randomness``, ``engine``, ``precision``, ``seeds`` and
                ``task_orders``. One of these that is not there has its default.

        Returns:
            ``benchmark``, ``model``, ``method`` and ``hyperparameters`` of a trial, as ``declared_settings`` has them.

        Raises:
            SettingError: a setting that a trial would refuse.
        """
        ...

    def data(self, trial: Trial, fetch: bool) -> dict[str, Any]:
        """The data set a trial would use here: its name, source and fingerprint."""
        ...

    def train(self, trial: Trial, data: dict[str, Any], device: str) -> Training:
        """The trial, ready to begin.

        Raises:
            DataError: this machine cannot provide that data.
        """
        ...

    def module_of(self, method: str) -> str:
        """The name of a method's file below ``methods/``, without its ending."""
        ...

    def loop_of(self, method: str) -> str:
        """The name of the file, in the track's folder and without its ending, that trains what ``module_of`` names."""
        ...

    def estimate(self, trial: Trial) -> float:
        """Seconds that the trial takes on one core or GPU, roughly, for a plan made before anything has run."""
        ...


TRACKS = {
    "vision": "clray.vision.training",
    "episodes": "clray.episodes.training",
    "language": "clray.language.training",
}
"""Each track's module; it is imported when a trial of that track is planned or run."""


def track(name: str) -> Track:
    """The module of a track.

    Raises:
        DeclarationError: there is no such track.
    """
    if name not in TRACKS:
        raise DeclarationError(f"track: {name!r} is not a track; allowed: {', '.join(TRACKS)}")
    return importlib.import_module(TRACKS[name])


def find(wanted: str, offered: Mapping[str, Iterable[str]], what: str) -> tuple[str, str]:
    """The track and the name that ``NAME`` or ``TRACK/NAME`` stands for.

    Args:
        wanted: as it was typed.
        offered: by track, the names that it has.
        what: what they are names of, for the error.

    Raises:
        DeclarationError: there is no such name, or several tracks have it.
    """
    from clray.documents import one_of, shorter

    named, slash, name = wanted.rpartition("/")
    having = [track for track in owners(name, offered) if not slash or track == named]
    if len(having) == 1:
        return having[0], name
    if having:
        choices = " or ".join(f"{track}/{name}" for track in having)
        raise DeclarationError(f"{wanted}: a {what} of several tracks: write {choices}")
    every = {each: owners(each, offered) for names in offered.values() for each in names}
    spelt = [n for each, of in every.items() for n in ([each] if len(of) == 1 else [f"{track}/{each}" for track in of])]
    raise DeclarationError(f"{shorter(wanted) or repr(wanted)}: no such {what}; {one_of(wanted, spelt)}")


def owners(name: str, offered: Mapping[str, Iterable[str]]) -> list[str]:
    """The tracks that have a name."""
    return [track for track, names in offered.items() if name in names]
