"""The bytes of a results store: on disks, in object stores, and in whatever else pyarrow opens.

Paths are relative to the store's root. Every method raises OSError where the storage refuses or cannot be reached.
"""

from __future__ import annotations

import io
import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from clray.atomic import temporary_name, write_atomically
from clray.extras import require

_PIECE = 2**26
"""Bytes of an object that one request reads. A request that takes longer than a minute counts as lost."""


@dataclass(frozen=True)
class StoredLease:
    """A lease as the storage holds it.

    Attributes:
        content: its bytes.
        mtime: when it was written, by the storage's clock; None where that is not known.
        version: identifies this version of an object (its etag); None where the bytes identify it.
    """

    content: bytes
    mtime: float | None
    version: Any = None


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing shows it.

    Attributes:
        name: its name in its folder.
        size: in bytes.
        mtime: when it was written, by the storage's clock, in seconds since 1970; None where that is not known.
    """

    name: str
    size: int
    mtime: float | None


class Storage(ABC):
    """The operations that a results store needs from the place that holds its files."""

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    def path(self, *parts: str) -> str:
        """The full path of a file, for messages and links."""
        return posixpath.join(self._root, *parts)

    @abstractmethod
    def read(self, relative: str) -> bytes | None:
        """The bytes of a file; None where there is none."""

    @abstractmethod
    def open(self, relative: str) -> IO[bytes] | None:
        """A file to read and to seek in; None where there is none."""

    @abstractmethod
    def version(self, relative: str) -> Any:
        """A value that changes whenever the file does; None where there is no file."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder; none where there is no such folder."""

    @abstractmethod
    def files(self, folder: str) -> list[StoredFile]:
        """The files in a folder, hidden ones included, with their sizes and times; none where there is no folder."""

    @abstractmethod
    def write(
        self,
        relative: str,
        content: bytes | Callable[[IO[bytes]], None],
        flush: bool = True,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Write a file whole or not at all, in a folder that is made where there is none.

        Args:
            content: the bytes, or a function that writes them into a file, which it can also read.
            flush: wait until a disk has the bytes. Without it a power failure can lose the file.
            before: is called when the content is complete, just before readers can see it.
        """

    @abstractmethod
    def move(self, relative: str, target: str) -> None:
        """Put a file in the place of another one. The first may stay where it is."""

    @abstractmethod
    def delete(self, relatives: Sequence[str]) -> None:
        """Delete files; those that do not exist, or that may not be deleted, are passed over."""

    def remove_temporaries(self, folder: str, trial_id: str) -> None:
        """Remove the unfinished files that killed processes left of a trial. Object stores have none."""
        return

    # -- leases: small files that several machines want to write --------------------------------------------------

    @abstractmethod
    def read_lease(self, relative: str) -> StoredLease | None:
        """A lease; None where there is none."""

    @abstractmethod
    def create(self, relative: str, content: bytes) -> StoredLease | None:
        """Write a lease where there is none. Returns None where there is one."""

    @abstractmethod
    def renew(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        """The holder replaces its lease. Returns None where it is not ``former`` any more."""

    @abstractmethod
    def take_over(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        """Replace the lease of a dead holder. Returns None where it is not ``former`` any more."""

    @abstractmethod
    def remove(self, relative: str, former: StoredLease) -> bool:
        """Delete a lease. Returns False where it is not ``former`` any more."""

    @abstractmethod
    def stamp(self, relative: str) -> float | None:
        """Write an empty file, and return the time at which the storage's clock says that it was written."""


class DiskStorage(Storage):
    """A folder of a local disk or of NFS. If several processes create or take over a lease at once, one succeeds."""

    def read(self, relative: str) -> bytes | None:
        try:
            return Path(self.path(relative)).read_bytes()
        except FileNotFoundError:
            return None

    def open(self, relative: str) -> IO[bytes] | None:
        try:
            return open(self.path(relative), "rb")
        except FileNotFoundError:
            return None

    def version(self, relative: str) -> Any:
        try:
            found = os.stat(self.path(relative))
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size

    def names(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.path(folder)) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []

    def files(self, folder: str) -> list[StoredFile]:
        found = []
        for name in self.names(folder):
            with suppress(FileNotFoundError):  # removed since it was listed
                state = os.stat(self.path(folder, name))
                found.append(StoredFile(name, state.st_size, state.st_mtime))
        return found

    def write(
        self,
        relative: str,
        content: bytes | Callable[[IO[bytes]], None],
        flush: bool = True,
        before: Callable[[], None] | None = None,
    ) -> None:
        path = self.path(relative)
        os.makedirs(posixpath.dirname(path), exist_ok=True)
        write_atomically(path, content, flush, before)

    def move(self, relative: str, target: str) -> None:
        os.replace(self.path(relative), self.path(target))

    def delete(self, relatives: Sequence[str]) -> None:
        for relative in relatives:
            with suppress(FileNotFoundError, PermissionError):
                os.unlink(self.path(relative))

    def remove_temporaries(self, folder: str, trial_id: str) -> None:
        for temporary in Path(self.path(folder)).glob(f".{trial_id}.*.tmp"):
            temporary.unlink(missing_ok=True)

    def read_lease(self, relative: str) -> StoredLease | None:
        try:
            # NFS fetches a file's state from the server when the file is opened; a stat() may get a cached one.
            with open(self.path(relative), "rb") as file:
                return StoredLease(file.read(), os.fstat(file.fileno()).st_mtime)
        except FileNotFoundError:
            return None

    def create(self, relative: str, content: bytes) -> StoredLease | None:
        path = self.path(relative)
        os.makedirs(posixpath.dirname(path), exist_ok=True)
        try:
            file = open(path, "xb")  # noqa: SIM115 - closed below
        except FileExistsError:
            return None
        try:
            with file:
                file.write(content)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise
        return StoredLease(content, None)

    def renew(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        if self.read(relative) != former.content:
            return None
        self.write(relative, content, flush=False)
        return StoredLease(content, None)

    def take_over(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        self.remove(relative, former)
        return self.create(relative, content)

    def remove(self, relative: str, former: StoredLease) -> bool:
        # Only one process can rename the file. If it holds something else than expected, the file is put back.
        path = self.path(relative)
        renamed = posixpath.join(posixpath.dirname(path), temporary_name(posixpath.basename(path)))
        try:
            os.rename(path, renamed)
            expected = Path(renamed).read_bytes() == former.content
            if not expected:
                with suppress(OSError):  # its holder writes it again
                    os.link(renamed, path)
            os.unlink(renamed)
        except FileNotFoundError:
            return False
        return expected

    def stamp(self, relative: str) -> float | None:
        path = Path(self.path(relative))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch()
            return path.stat().st_mtime
        finally:
            path.unlink(missing_ok=True)


class PyarrowStorage(Storage):
    """HDFS, and whatever else ``pyarrow.fs`` opens.

    pyarrow cannot create a file exclusively. Two processes that ask for a lease in the same moment can both get it: the
    one that wrote first finds out with its next heartbeat, and stops.
    """

    def __init__(self, files: Any, root: str) -> None:
        super().__init__(root)
        self._files = files

    def read(self, relative: str) -> bytes | None:
        try:
            with self._files.open_input_stream(self.path(relative)) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def open(self, relative: str) -> IO[bytes] | None:
        content = self.read(relative)
        return None if content is None else io.BytesIO(content)

    def version(self, relative: str) -> Any:
        found = self._files.get_file_info(self.path(relative))
        return (found.mtime_ns, found.size) if found.is_file else None

    def names(self, folder: str) -> list[str]:
        from pyarrow import fs

        entries = self._files.get_file_info(fs.FileSelector(self.path(folder), allow_not_found=True))
        return [entry.base_name for entry in entries if entry.type == fs.FileType.File]

    def files(self, folder: str) -> list[StoredFile]:
        from pyarrow import fs

        entries = self._files.get_file_info(fs.FileSelector(self.path(folder), allow_not_found=True))
        return [
            StoredFile(entry.base_name, entry.size, entry.mtime_ns / 1e9 if entry.mtime_ns else None)
            for entry in entries
            if entry.type == fs.FileType.File
        ]

    def write(
        self,
        relative: str,
        content: bytes | Callable[[IO[bytes]], None],
        flush: bool = True,
        before: Callable[[], None] | None = None,
    ) -> None:
        folder, name = posixpath.split(self.path(relative))
        temporary = posixpath.join(folder, temporary_name(name))
        self._files.create_dir(folder, recursive=True)
        try:
            with self._files.open_output_stream(temporary) as stream:
                stream.write(_complete(content))
            if before is not None:
                before()
            self._files.move(temporary, self.path(relative))
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                self._files.delete_file(temporary)
            raise

    def move(self, relative: str, target: str) -> None:
        self._files.move(self.path(relative), self.path(target))

    def delete(self, relatives: Sequence[str]) -> None:
        for relative in relatives:
            with suppress(FileNotFoundError, PermissionError):
                self._files.delete_file(self.path(relative))

    def read_lease(self, relative: str) -> StoredLease | None:
        content = self.read(relative)
        stamp = None if content is None else self._files.get_file_info(self.path(relative)).mtime_ns
        return None if content is None else StoredLease(content, stamp / 1e9 if stamp else None)

    def create(self, relative: str, content: bytes) -> StoredLease | None:
        if self.read(relative) is not None:
            return None
        self.write(relative, content)
        return StoredLease(content, None)

    def renew(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        if self.read(relative) != former.content:
            return None
        self.write(relative, content)
        return StoredLease(content, None)

    def take_over(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        return self.renew(relative, content, former)

    def remove(self, relative: str, former: StoredLease) -> bool:
        if self.read(relative) != former.content:
            return False
        self.delete([relative])
        return True

    def stamp(self, relative: str) -> float | None:
        path = self.path(relative)
        self._files.create_dir(posixpath.dirname(path), recursive=True)
        with self._files.open_output_stream(path):
            pass
        stamp = self._files.get_file_info(path).mtime_ns
        self._files.delete_file(path)
        return stamp / 1e9 if stamp else None


def _complete(content: bytes | Callable[[IO[bytes]], None]) -> Any:
    if not callable(content):
        return content
    buffer = io.BytesIO()
    content(buffer)
    return buffer.getbuffer()  # the same memory, not a copy


class ObjectStorage(Storage):
    """A bucket of S3, of Google Cloud or of Azure. An object appears under its name when it is complete.

    A lease is created and replaced under a condition that the bucket itself checks, so that one of several that try at
    once succeeds.
    """

    def __init__(self, bucket: Any, root: str) -> None:
        super().__init__(root)
        self._bucket = bucket

    def read(self, relative: str) -> bytes | None:
        import obstore

        with _os_errors():
            try:
                return obstore.get(self._bucket, relative).bytes().to_bytes()
            except FileNotFoundError:
                return None

    def open(self, relative: str) -> IO[bytes] | None:
        import obstore

        with _os_errors():
            try:
                size = obstore.head(self._bucket, relative)["size"]
                content = io.BytesIO()
                while content.tell() < size:
                    content.write(obstore.get_range(self._bucket, relative, start=content.tell(), length=_PIECE))
            except FileNotFoundError:
                return None
        content.seek(0)
        return content

    def version(self, relative: str) -> Any:
        import obstore

        with _os_errors():
            try:
                return _version(obstore.head(self._bucket, relative))
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        import obstore

        with _os_errors():
            found = obstore.list_with_delimiter(self._bucket, folder)["objects"]
        return [posixpath.basename(entry["path"]) for entry in found]

    def files(self, folder: str) -> list[StoredFile]:
        import obstore

        with _os_errors():
            found = obstore.list_with_delimiter(self._bucket, folder)["objects"]
        return [
            StoredFile(posixpath.basename(entry["path"]), entry["size"], entry["last_modified"].timestamp())
            for entry in found
        ]

    def write(
        self,
        relative: str,
        content: bytes | Callable[[IO[bytes]], None],
        flush: bool = True,
        before: Callable[[], None] | None = None,
    ) -> None:
        complete = _complete(content)
        if before is not None:
            before()
        self._put(relative, complete)

    def move(self, relative: str, target: str) -> None:
        import obstore

        # The bucket copies it. S3 refuses objects over 5 GB: then there is no checkpoint before the newest.
        with suppress(OSError), _os_errors():
            obstore.copy(self._bucket, relative, target)

    def delete(self, relatives: Sequence[str]) -> None:
        import obstore

        try:
            with _os_errors():
                obstore.delete(self._bucket, list(relatives))  # on S3 and Azure one request
            return
        except OSError:
            pass  # some of them do not exist, or the bucket does not delete several at once
        for relative in relatives:
            with suppress(FileNotFoundError, PermissionError), _os_errors():
                obstore.delete(self._bucket, relative)

    def read_lease(self, relative: str) -> StoredLease | None:
        import obstore

        with _os_errors():
            try:
                found = obstore.get(self._bucket, relative)
                content = found.bytes().to_bytes()
            except FileNotFoundError:
                return None
        return StoredLease(content, found.meta["last_modified"].timestamp(), _version(found.meta))

    def create(self, relative: str, content: bytes) -> StoredLease | None:
        return self._put_if(relative, content, "create")

    def renew(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        return self._put_if(relative, content, dict(former.version))

    def take_over(self, relative: str, content: bytes, former: StoredLease) -> StoredLease | None:
        return self.renew(relative, content, former)

    def remove(self, relative: str, former: StoredLease) -> bool:
        # obstore cannot delete under a condition. But no process takes over a lease that was just renewed.
        if self.renew(relative, former.content, former) is None:
            return False
        self.delete([relative])
        return True

    def stamp(self, relative: str) -> float | None:
        import obstore

        self._put(relative, b"")
        with _os_errors():
            return obstore.head(self._bucket, relative)["last_modified"].timestamp()

    def _put(self, relative: str, content: Any, mode: Any = "overwrite") -> Any:
        import obstore

        with _os_errors():
            return obstore.put(self._bucket, relative, content, mode=mode)

    def _put_if(self, relative: str, content: bytes, mode: Any) -> StoredLease | None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            written = self._put(relative, content, mode)
        except OSError as error:
            if isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                return None
            raise
        return StoredLease(content, None, _version(written))


def _version(found: Any) -> tuple[tuple[str, str], ...]:
    return tuple((key, found[key]) for key in ("e_tag", "version") if found[key] is not None)


@contextmanager
def _os_errors() -> Iterator[None]:
    """Raise obstore's errors as OSError, in one line."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:  # obstore raises Python's own where an object does not exist
        kind: type[OSError] = OSError
        if isinstance(error, FileNotFoundError):
            kind = FileNotFoundError
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
            kind = PermissionError
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise kind(lines[0][:300]) from error


# ----------------------------------------------------------------------------------------------------------------
# URIs


_TRUE = ("true", "1")


def open_storage(uri: str) -> tuple[Storage, str]:
    """The storage that a path or a URI names, and the name by which to show it. Nothing is created.

    Raises:
        OSError, ValueError: nothing serves this URI.
    """
    if "://" not in uri:
        root = str(Path(uri).expanduser().resolve())
        return DiskStorage(root), root
    scheme = uri.partition("://")[0]
    if scheme in ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl"):
        return _object_storage(uri), uri
    from pyarrow import fs

    files, root = fs.FileSystem.from_uri(uri)
    if isinstance(files, fs.LocalFileSystem):
        return DiskStorage(root), uri
    return PyarrowStorage(files, root), uri


def _object_storage(uri: str) -> ObjectStorage:
    require("cloud", f"a store at {urlsplit(uri).scheme}://")
    from obstore import store as stores
    from obstore.exceptions import BaseError

    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    user, _, host = parts.netloc.rpartition("@")
    scheme = {"gcs": "gs"}.get(parts.scheme, parts.scheme)
    config: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        config = _s3_config(host, user, options)
    elif scheme == "gs":
        config = _gs_config(user, options)
    else:
        host = parts.netloc  # abfss://CONTAINER@ACCOUNT.dfs.core.windows.net
    if options:
        raise ValueError(f"unknown in a store's address: {', '.join(options)}")
    endpoint = str(config.get("endpoint") or config.get("base_url") or _environment_endpoint(scheme))
    client: Any = {"timeout": "60s", "connect_timeout": "10s"}
    if endpoint.startswith("http://"):
        client["allow_http"] = True
    address = urlunsplit((scheme, host, parts.path, "", ""))
    try:
        bucket: Any = stores.from_url(address, config=config or None, client_options=client)
    except BaseError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    return ObjectStorage(bucket, host + parts.path)


def _environment_endpoint(scheme: str) -> str:
    names = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "gs": ("GOOGLE_BASE_URL",)}
    return next((os.environ[name] for name in names.get(scheme, ()) if os.environ.get(name)), "")


def _endpoint(options: dict[str, str]) -> str:
    """The endpoint that a URI names as pyarrow has it: ``scheme=http&endpoint_override=127.0.0.1:9000``."""
    named, scheme = options.pop("endpoint_override", ""), options.pop("scheme", "https")
    return named if not named or "://" in named else f"{scheme}://{named}"


def _s3_config(bucket: str, user: str, options: dict[str, str]) -> dict[str, Any]:
    from pyarrow import fs

    config: dict[str, Any] = {}
    if endpoint := _endpoint(options) or _environment_endpoint("s3"):
        config["endpoint"] = endpoint
    if options.pop("force_virtual_addressing", "").lower() in _TRUE:
        config["virtual_hosted_style_request"] = True
    options.pop("allow_delayed_open", None)  # pyarrow's; every small object is put by one request
    if user:
        key, _, secret = user.partition(":")
        config |= {"access_key_id": unquote(key), "secret_access_key": unquote(secret)}
    elif not any(os.environ.get(name) for name in _AWS_ENVIRONMENT):
        config |= _aws_profile("AWS_SHARED_CREDENTIALS_FILE", "credentials", _AWS_KEYS)
    region = options.pop("region", "") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        region = _aws_profile("AWS_CONFIG_FILE", "config", ("region",)).get("region")
    if region or not endpoint:
        config["region"] = region or fs.resolve_s3_region(bucket)
    return config


def _gs_config(user: str, options: dict[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if endpoint := _endpoint(options):
        config["base_url"] = endpoint
    if user == "anonymous":
        config["skip_signature"] = True
    return config


_AWS_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE",
)  # fmt: skip
"""Each of these tells obstore where credentials are."""
_AWS_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def _aws_profile(variable: str, name: str, keys: Sequence[str]) -> dict[str, str]:
    """Settings of the user's profile in ``~/.aws/NAME``, which obstore does not read; empty where there are none."""
    import configparser

    path = Path(os.environ.get(variable) or os.path.expanduser(f"~/.aws/{name}"))
    profile = os.environ.get("AWS_PROFILE") or "default"
    files = configparser.RawConfigParser()
    try:
        files.read_string(path.read_text(encoding="utf-8"))
    except (OSError, configparser.Error, UnicodeError):
        return {}
    for section in (profile, f"profile {profile}"):
        if files.has_section(section):
            return {key.removeprefix("aws_"): files[section][key] for key in keys if key in files[section]}
    return {}
