"""The interface of a track: what its module ``training`` offers to the rest of clray.

The registry of the tracks is ``clray.tracks``; a track itself imports nothing from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clray.training import Training
from clray.trial import Trial

KEPT_FILES = {"weights": ("weights.pt", "weights.json")}
"""The things that ``keep`` in a sweep file may name, and the files of each beside a trial's record."""


@dataclass(frozen=True)
class BenchmarkFamily:
    """Benchmarks of one kind, and the methods that learn on them.

    Attributes:
        what: how they learn, in words; may be empty where a track has one kind.
        benchmarks: their names.
        methods: name to ``module:Class`` below the track's ``methods/``.
        sweeps: of those that ship with clray, the ones to start one's own from: for a method the first that has it. The
            first of all needs no file; together they have every method.
        has_plain_form: ``engine: eager`` is a plain form of every method, with the same numbers but for rounding.
    """

    what: str
    benchmarks: tuple[str, ...]
    methods: Mapping[str, str]
    sweeps: tuple[str, ...]
    has_plain_form: bool = False


class FileLayout(Protocol):
    """One form in which a data set is published.

    Attributes:
        files: by their paths.
        partial: why this is not the whole data set, or not the published one; empty where it is.
    """

    @property
    def files(self) -> Mapping[str, Any]: ...

    @property
    def partial(self) -> str: ...


class DatasetInfo(Protocol):
    """A data set as published.

    Attributes:
        origin: where it comes from, for people: an address.
        advice: a hint for users who lack it.
        download: the form that ``fetch`` brings, if there is one.
    """

    @property
    def origin(self) -> str: ...

    @property
    def advice(self) -> str: ...

    @property
    def download(self) -> FileLayout | None: ...


class LocalDataset(Protocol):
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
    def form(self) -> FileLayout | None: ...


class DatasetRegistry(Protocol):
    """A track's data sets: its module ``data``."""

    DATASETS: Mapping[str, DatasetInfo]
    """By name."""

    def find(self, name: str) -> LocalDataset | None:
        """Find a data set on this machine without reading it.

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
    """The module of a track that ``clray.tracks.TRACKS`` names, as the rest of clray sees it."""

    sources: DatasetRegistry
    """The track's data sets."""

    PRECISIONS: tuple[str, ...]
    """The precisions (``clray.trial.Precision``) that its trials can have."""

    KEEPS: tuple[str, ...]
    """The keys of ``KEPT_FILES`` that its trials can keep."""

    def kinds(self) -> list[BenchmarkFamily]:
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

    def kept_files(self, what: str, training: Training, about: Mapping[str, Any]) -> dict[str, bytes]:
        """The files that keep something of a trial that has ended, by the names in ``KEPT_FILES``.

        Args:
            what: one of ``KEEPS``.
            training: the trial, as ``train`` made it.
            about: facts that go into the files as they are.
        """
        ...

    def modules_of(self, trial: Trial) -> list[str]:
        """The modules that a trial runs, by their full names: its method's, its training loop's, and those of all that
        it chooses by name, such as its benchmark and its network.

        What these import needs no mention: ``clray.provenance`` follows imports. It does not follow the lists of a
        track (the ``__init__`` of ``methods``, ``benchmarks``, ``networks`` and ``learners``), so what is found through
        one of these must be named here. Nothing heavy is imported to answer.
        """
        ...

    def estimate(self, trial: Trial) -> float:
        """Seconds that the trial takes on one core or GPU, roughly, for a plan made before anything has run."""
        ...
