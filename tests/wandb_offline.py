"""Reads an offline run's ``.wandb`` file: a 7-byte header, then LevelDB's log format with protobuf Records in it.

LevelDB's log has blocks of 32 KiB, filled with chunks of (CRC 4, length 2, type 1, content). A record is one FULL chunk
or FIRST, MIDDLE …, LAST. The CRC-32 covers type and content.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _CHUNK = 7, 32 * 1024, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """The data that ``wandb sync`` would send from an offline run."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def _records(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B", "no .wandb file"
    at, parts = _HEADER, []
    while at + _CHUNK <= len(content):
        room = _BLOCK - at % _BLOCK
        if room < _CHUNK:  # the end of a block too short for a chunk is padding
            at += room
            continue
        crc, length, kind = struct.unpack_from("<IHB", content, at)
        chunk = content[at + _CHUNK : at + _CHUNK + length]
        assert crc == zlib.crc32(bytes([kind]) + chunk), f"damaged at byte {at}"
        at += _CHUNK + length
        parts.append(chunk)
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts = []
        else:
            assert kind in (_FIRST, _MIDDLE)


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_run(folder: Path) -> OfflineRun:
    """The run in an ``offline-run-…`` folder."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    found = OfflineRun()
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                found.config |= _values(record.run.config.update)
            case "config":
                found.config |= _values(record.config.update)
            case "history":
                found.history.append(_values(record.history.item))
            case "summary":
                found.summary |= _values(record.summary.update)
            case "artifact":
                found.artifacts.append(record.artifact)
            case "metric":
                found.metrics.append(record.metric)
            case "exit":
                found.exit_code = record.exit.exit_code
    return found
