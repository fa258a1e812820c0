"""A small local stand-in for the W&B server: it answers wandb's requests while runs are sent, and stores them in
memory.

It stores history lines at the offsets at which they arrive, as the real server does, and reports the offsets when a run
is resumed. So a publisher that sends a row twice, or leaves one out, is found.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "tester"


@dataclass
class Run:
    """The state of a run on the server."""

    info: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exitcode: int | None = None
    finishes: int = 0

    @property
    def config(self) -> dict[str, Any]:
        return {k: v["value"] for k, v in json.loads(self.info.get("config") or "{}").items()}

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class Server(ThreadingHTTPServer):
    """Serves 127.0.0.1 on a free port; ``runs`` is what arrived, by (project, run id)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[tuple[str, str], Run] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.views: dict[str, dict[str, Any]] = {}
        """Pages, by id."""
        self.refuse: dict[str, int] = {}
        """Path endings, and the HTTP status that they are answered with."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def run(self, id: str, project: str = "clray") -> Run:
        return self.runs.setdefault((project, id), Run())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""

    def query(self, text: str, v: dict[str, Any]) -> Any:
        """The answer to a GraphQL operation; empty for one that wandb can do without."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", text)
        operation = found[1] if found else ""
        model = {"id": "m", "name": v.get("project") or "clray", "entity": {"id": "e", "name": ENTITY}}
        if "viewer" in text:
            return {"viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}
        if operation == "RunResumeStatus":
            run = self.runs.get((v["project"], v["name"]))
            return {"model": {**model, "bucket": _known(v["name"], run) if run and run.info else None}}
        if operation == "UpsertBucket":
            if "project" not in v:  # the public API's way: a run that is there, by its id
                v = {**v, "name": v["id"], "project": next(p for p, id in self.runs if id == v["id"])}
            run = self.run(v["name"], v["project"])
            inserted = not run.info
            run.info.update({k: x for k, x in v.items() if x is not None})
            bucket = {"id": v["name"], "name": v["name"], "displayName": v.get("displayName"), "project": model}
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}
        if operation == "Run":
            run = self.runs.get((v["project"], v["name"]))
            return {"project": {**model, "internalId": "p", "run": _known(v["name"], run) if run else None}}
        if operation == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.url}/upload/{v['run']}/{f}"} for f in v["files"]]
            return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            self.artifacts.append(v["input"])
            return {"createArtifact": {"artifact": {"id": str(len(self.artifacts) - 1), "state": "COMMITTED"}}}
        if operation == "ArtifactByID":
            return {"artifact": _committed(v["id"], self.artifacts[int(v["id"])], model)}
        if operation == "GetProjects":
            known = {"__typename": "Project", "entityName": ENTITY, "createdAt": "", "isBenchmark": False, "user": None}
            nodes = [{"node": {**known, "id": "p", "name": name}} for name in {project for project, _ in self.runs}]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": nodes}}
        if operation == "ProjectViews":
            nodes = [{"node": view, "cursor": id} for id, view in self.views.items()]
            return {"project": {**model, "allViews": {"edges": nodes, "pageInfo": {"hasNextPage": False}}}}
        if operation == "ProjectInternalId":
            known = v["projectName"] in {project for project, _ in self.runs}
            return {"project": {"id": "p", "internalId": "p-internal"} if known else None}
        if operation == "upsertView":
            id = v["id"] or f"view{len(self.views)}"
            inserted = id not in self.views
            project = {"id": "p", "name": v["projectName"], "entityName": v["entityName"]}
            self.views[id] = {**v, "id": id, "project": project, "updatedAt": "2020-01-01T00:00:00", "user": {}}
            return {"upsertView": {"view": self.views[id], "inserted": inserted}}
        return {"project": None, "entity": None}


def _known(name: str, run: Run) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "displayName": run.info.get("displayName"),
        "group": run.info.get("groupName"),
        "jobType": run.info.get("jobType"),
        "description": None,
        "notes": None,
        "state": "running" if run.exitcode is None else "finished",
        "summaryMetrics": json.dumps(run.summary),
        "logLineCount": 0,
        "historyLineCount": len(run.lines),
        "eventsLineCount": 0,
        "historyTail": json.dumps(run.lines[-1:]),
        "eventsTail": "[]",
        "config": run.info.get("config") or "{}",
        "tags": run.info.get("tags") or [],
        "wandbConfig": '{"t": 1}',
    }


def _committed(id: str, given: dict[str, Any], project: dict[str, Any]) -> dict[str, Any]:
    sequence = {"__typename": "ArtifactSequence", "name": given["artifactCollectionName"]}
    unknown = ("description", "metadata", "historyStep", "commitHash", "updatedAt")
    return {
        "__typename": "Artifact",
        "id": id,
        "artifactSequence": {**sequence, "project": {**project, "internalId": "p"}},
        "artifactType": {"name": given["artifactTypeName"]},
        "versionIndex": 0,
        "ttlDurationSeconds": 0,
        "ttlIsInherited": True,
        "tags": [],
        "aliases": [],
        "state": "COMMITTED",
        "size": 0,
        "fileCount": 0,
        "digest": given["digest"],
        "createdAt": "2020-01-01T00:00:00",
        **dict.fromkeys(unknown),
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for ending, status in self.server.refuse.items():
            if self.path.endswith(ending):
                return self._answer({"errors": [{"message": "refused by the stand-in"}]}, status)
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            return self._answer({"data": self.server.query(asked["query"], asked.get("variables") or {})})
        parts = self.path.split("/")
        if parts[-1] != "file_stream":
            return self._answer({})
        self._stream(self.server.run(parts[-2], parts[-3]), json.loads(body))
        return self._answer({"exitcode": None, "limits": {}})

    def _stream(self, run: Run, sent: dict[str, Any]) -> None:
        for name, chunk in (sent.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                at = chunk["offset"]
                run.lines[at : at + len(chunk["content"])] = chunk["content"]
            elif name == "wandb-summary.json":
                run.summary = json.loads(chunk["content"][-1])
        if sent.get("complete"):
            run.exitcode = sent.get("exitcode")
            run.finishes += 1

    def do_PUT(self) -> None:
        self.server.files[self.path] = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer({})
