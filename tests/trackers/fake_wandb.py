"""As much of a W&B server as the tests need: runs can be uploaded to it and read from it, over HTTP on this machine."""

from __future__ import annotations

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

KEY = "feed" * 10


@dataclass
class Run:
    name: str
    display_name: str = ""
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    def node(self) -> dict[str, Any]:
        return {
            "id": f"storage-{self.name}",
            "projectId": "1",
            "name": self.name,
            "displayName": self.display_name,
            "group": self.group,
            "jobType": self.job_type,
            "tags": self.tags,
            "state": "finished" if self.exit_code == 0 else "failed",
            "config": json.dumps(self.config),
            "summaryMetrics": json.dumps(self.summary),
            "systemMetrics": "{}",
            "createdAt": "2026-11-24T12:00:00Z",
            "heartbeatAt": "2026-11-24T12:00:00Z",
            "historyLineCount": len(self.history),
            "historyKeys": {"lastStep": self.last_step},
            "user": {"name": "somebody", "username": "somebody"},
            **dict.fromkeys(("sweepName", "commit", "readOnly", "description", "notes")),
        }

    @property
    def last_step(self) -> int:
        return max((row["_step"] for row in self.history), default=-1)


class FakeWandb:
    """A server with one project; `address` is its WANDB_BASE_URL."""

    def __init__(self, project: str = "lorabench", page_size: int = 2) -> None:
        self.project = project
        self.page_size = page_size
        self.runs: dict[str, Run] = {}
        self.keys: set[str] = set()
        self.unanswered: list[str] = []
        self.stall_seconds = 0.0
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                pass

            def do_GET(self) -> None:
                self._reply(404, {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                server.keys.add(self.headers.get("Authorization", ""))
                if server.closing.wait(server.stall_seconds):
                    self.close_connection = True
                    return
                if self.path == "/graphql":
                    question = json.loads(body)
                    self._reply(200, server.answer(question["query"], question.get("variables") or {}))
                elif match := re.fullmatch(r"/files/(?:[^/]+/)?[^/]+/([^/]+)/file_stream", self.path):
                    server.stream(match[1], json.loads(body))
                    self._reply(200, {})
                else:
                    self._reply(404, {})

            def _reply(self, status: int, values: dict[str, Any]) -> None:
                body = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """What makes W&B use this server."""
        return {"WANDB_BASE_URL": self.address, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """Take what a run uploads while it runs."""
        run = self.runs[name]
        for file, chunk in body.get("files", {}).items():
            rows = [json.loads(line) for line in chunk["content"]]
            if file == "wandb-history.jsonl":
                run.history[chunk["offset"] :] = rows
            elif file == "wandb-summary.json":
                run.summary = rows[-1]
        if "exitcode" in body:
            run.exit_code = body["exitcode"]

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one GraphQL question."""
        if "viewer {" in query:
            viewer = {"id": "1", "entity": "somebody", "username": "somebody", "email": "", "flags": "{}"}
            return {"data": {"viewer": viewer | {"teams": {"edges": []}}}}
        if "upsertBucket(" in query:
            return {"data": {"upsertBucket": self._upsert(variables)}}
        if "serverInfo" in query:
            return {"data": {"serverInfo": {"features": []}}}
        if "runs(" in query:
            return {"data": {"project": self._page(variables)}}
        run = self.runs.get(str(variables.get("name") or variables.get("runName") or variables.get("run")))
        if run is None:
            return self._refuse(query)
        if "RunHistoryKeys" in query:
            return _of_run({"historyKeys": {"lastStep": run.last_step}})
        if "parquetHistory" in query:
            return _of_run({"parquetHistory": {"parquetUrls": [], "liveData": run.history}})
        if "HistoryPage" in query:
            wanted = range(variables["minStep"], variables["maxStep"])
            return _of_run({"history": [json.dumps(row) for row in run.history if row["_step"] in wanted]})
        return self._refuse(query)

    def _refuse(self, query: str) -> dict[str, Any]:
        self.unanswered.append(" ".join(query.split())[:80])
        return {"errors": [{"message": "this server knows nothing about that"}]}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.display_name = variables.get("displayName") or run.display_name
        run.group = variables.get("groupName") or run.group
        run.job_type = variables.get("jobType") or run.job_type
        run.tags = variables.get("tags") or run.tags
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        entity = {"id": "1", "name": "somebody"}
        project = {"id": "1", "name": self.project, "entity": entity}
        bucket = run.node() | {"project": project, "historyLineCount": len(run.history)}
        return {"bucket": bucket, "inserted": inserted}

    def _page(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        if variables["project"] != self.project:
            return None
        names = list(self.runs)
        first = int(variables.get("cursor") or 0)
        last = first + self.page_size
        edges = [{"node": self.runs[name].node(), "cursor": str(last)} for name in names[first:last]]
        page = {"endCursor": str(last), "hasNextPage": last < len(names)}
        return {
            "internalId": "1",
            "runCount": len(names),
            "readOnly": False,
            "runs": {"edges": edges, "pageInfo": page},
        }


def _of_run(values: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"project": {"run": values}}}
