"""A hub on this machine, for tests: the part of the Hugging Face hub's protocol that its client and `datasets` use.

It answers repository information, the file tree in pages, path information and file downloads with ranges; large files
are redirected as the hub redirects them to its storage; gated, private and missing repositories, revisions and files
are refused with the hub's own status codes and headers. Faults can be injected: a connection cut in mid-file, an error
status, silence.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

STORED_APART = (".parquet", ".safetensors", ".gz", ".model", ".bin", ".gguf", ".tflite")
"""Kinds of files that the hub keeps in its large-file storage and redirects to."""
_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"
    r"(?:/(?P<action>revision|tree|paths-info)/(?P<revision>[^/]+)(?P<path>/.*)?)?"
)
_WRITE = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<action>preupload|commit)/main")
_RESOLVE = re.compile(r"/(?:(?P<kind>datasets)/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class HubRepository:
    """Files by branch. `gated` is the set of tokens that have access, None where everybody has."""

    kind: str
    id: str
    branches: dict[str, dict[str, bytes]]
    gated: set[str] | None = None
    private: set[str] | None = None
    licence: str | None = None

    def commit(self, branch: str) -> str:
        digest = hashlib.sha1(f"{self.kind}/{self.id}@{branch}".encode())
        for path, content in sorted(self.branches[branch].items()):
            digest.update(f"{path}\0".encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and files that a branch name or commit hash means."""
        for branch, files in self.branches.items():
            commit = self.commit(branch)
            if revision in (branch, commit):
                return commit, files
        return None


@dataclass
class Fault:
    """What to do wrong on requests whose path contains `on`, so many times."""

    on: str
    times: int = 1
    status: int | None = None
    cut_after: int | None = None
    """Bytes of the body that are sent before the connection is dropped."""
    hang_seconds: float = 0.0
    methods: tuple[str, ...] = ("GET", "HEAD", "POST")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0


@dataclass
class LocalHub:
    """The server, its repositories, its faults and the log of what it was asked."""

    repositories: dict[tuple[str, str], HubRepository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    writers: set[str] = field(default_factory=set)
    """Of `tokens`, those that may make and change repositories."""
    page_size: int = 3
    """Entries per page of a file tree; small, so that pages are followed."""
    left_out: set[str] = field(default_factory=set)
    """Headers that are never sent."""
    terse: bool = False
    """Say only what a simpler hub says: no error codes, no list of files with a repository's information."""

    def __post_init__(self) -> None:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="local-hub", daemon=True)
        self._lock = threading.Lock()

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def storage_url(self) -> str:
        """Another host name, as the hub's storage is another host than the hub."""
        return self.url.replace("127.0.0.1", "localhost")

    def add(self, repository: HubRepository) -> HubRepository:
        self.repositories[repository.kind, repository.id] = repository
        return repository

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.on in path and method in fault.methods:
                    fault.times -= 1
                    return fault
        return None

    def log(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def bytes_sent(self, part: str) -> int:
        """Bytes of bodies sent for paths that contain `part`."""
        return sum(request.sent for request in self.requests if part in request.path)


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword not in self.hub.left_out:
            super().send_header(keyword, value)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in the hub's own log."""

    def _answer(self) -> None:
        self._sent = 0
        self._fault = self.hub.take_fault(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self._fault is not None:
                time.sleep(self._fault.hang_seconds)
                if self._fault.status is not None:
                    raise _Refused(self._fault.status, "", "injected fault")
            self._route(body)
        except _Refused as refusal:
            self._refuse(refusal)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.hub.log(Request(self.command, self.path, headers, self._sent))

    def _route(self, body: bytes) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path.startswith("/storage/"):
            self._send_stored(url.path.rpartition("/")[2])
        elif match := _API.fullmatch(url.path):
            self._answer_api(match, query, body)
        elif self.command == "POST" and url.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.command == "POST" and url.path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif self.command == "POST" and (match := _WRITE.fullmatch(url.path)):
            self._write(match, body)
        elif match := _RESOLVE.fullmatch(url.path):
            self._resolve(match)
        else:
            raise _Refused(404, "", "no such address")

    def _token(self) -> str | None:
        authorization = self.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ").strip() or None
        if token is not None and token not in self.hub.tokens:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        return token

    def _repository(self, kind: str, name: str) -> HubRepository:
        token = self._token()
        repository = self.hub.repositories.get((kind, urllib.parse.unquote(name)))
        if repository is None or (repository.private is not None and token not in repository.private):
            raise _Refused(401 if token is None else 404, "RepoNotFound", "Repository not found")
        return repository

    def _revision(self, repository: HubRepository, quoted: str) -> tuple[str, dict[str, bytes]]:
        found = repository.find(urllib.parse.unquote(quoted))
        if found is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {urllib.parse.unquote(quoted)}")
        return found

    def _writer(self) -> str:
        token = self._token()
        if token is None or token not in self.hub.writers:
            raise _Refused(401 if token is None else 403, "", "You don't have the rights to write here")
        return token

    def _create(self, form: dict[str, object]) -> None:
        token, name = self._writer(), f"{form.get('organization') or 'us'}/{form['name']}"
        if ("model", name) in self.hub.repositories:
            raise _Refused(409, "", "You already created this model repo")
        private = {token} if form.get("private") or form.get("visibility") == "private" else None
        self.hub.add(HubRepository("model", name, {"main": {}}, private=private))
        self._send_json({"url": f"{self.hub.url}/{name}", "name": name})

    def _write(self, match: re.Match[str], body: bytes) -> None:
        """Takes every file in the commit itself, as the hub takes small ones."""
        self._writer()
        repository = self._repository("model", match["id"])
        if match["action"] == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            answer = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in files]
            self._send_json({"files": answer})
            return
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                repository.branches["main"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        page = f"{self.hub.url}/{repository.id}"
        commit = repository.commit("main")
        self._send_json({"success": True, "commitOid": commit, "commitUrl": f"{page}/commit/{commit}"})

    def _answer_api(self, match: re.Match[str], query: dict[str, list[str]], body: bytes) -> None:
        kind = match["kind"].removesuffix("s")
        repository = self._repository(kind, match["id"])
        commit, files = self._revision(repository, match["revision"] or "main")
        if match["action"] in (None, "revision"):
            self._send_json(self._information(repository, commit, files, blobs="blobs" in query))
        elif match["action"] == "tree":
            self._send_tree(match, query, files)
        else:
            form = urllib.parse.parse_qs(body.decode())
            wanted = form.get("paths", [])
            listed = {entry["path"]: entry for folder in _folders(files) for entry in _listing(files, folder, False)}
            self._send_json([listed[path] for path in wanted if path in listed])

    def _information(
        self, repository: HubRepository, commit: str, files: dict[str, bytes], *, blobs: bool
    ) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for path, content in sorted(files.items()):
            sibling: dict[str, object] = {"rfilename": path}
            if blobs:
                sibling |= {"size": len(content), "blobId": _git_hash(content)}
                if _is_stored_apart(path):
                    sibling["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        return {
            "_id": "0" * 24,
            "id": repository.id,
            "sha": commit,
            "private": repository.private is not None,
            "gated": "manual" if repository.gated is not None else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [f"license:{repository.licence}"] if repository.licence else [],
            "cardData": _front_matter(files.get("README.md", b"").decode()),
            "siblings": None if self.hub.terse else siblings,
            "createdAt": "2023-01-01T00:00:00.000Z",
            "lastModified": "2023-01-01T00:00:00.000Z",
        }

    def _send_tree(self, match: re.Match[str], query: dict[str, list[str]], files: dict[str, bytes]) -> None:
        folder = urllib.parse.unquote((match["path"] or "").strip("/"))
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        if folder and folder not in _folders(files):
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
        entries = list(_listing(files, folder, recursive))
        start = int(query.get("cursor", ["0"])[0])
        end = start + self.hub.page_size
        headers = {}
        if end < len(entries):
            url = urllib.parse.urlsplit(self.path)
            kept = {key: values[0] for key, values in query.items()} | {"cursor": str(end)}
            headers["Link"] = f'<{self.hub.url}{url.path}?{urllib.parse.urlencode(kept)}>; rel="next"'
        self._send_json(entries[start:end], headers)

    def _resolve(self, match: re.Match[str]) -> None:
        repository = self._repository("dataset" if match["kind"] else "model", match["id"])
        commit, files = self._revision(repository, match["revision"])
        path = urllib.parse.unquote(match["path"])
        token = self._token()
        if (
            repository.gated is not None
            and path not in ("README.md", ".gitattributes")
            and token not in repository.gated
        ):
            raise _Refused(
                401 if token is None else 403,
                "GatedRepo",
                f"Access to {repository.kind} {repository.id} is restricted.",
            )
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            self._refuse(_Refused(404, "EntryNotFound", "Entry not found"), headers)
            return
        content = files[path]
        if _is_stored_apart(path):
            digest = _sha256(content)
            self.send_response(302)
            headers |= {
                "Location": f"{self.hub.storage_url}/storage/{digest}",
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "ETag": f'"{_git_hash(content)}"',
                "Content-Length": "0",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
        else:
            self._send_content(content, headers | {"ETag": f'"{_git_hash(content)}"'})

    def _send_stored(self, digest: str) -> None:
        for repository in self.hub.repositories.values():
            for files in repository.branches.values():
                for path, content in files.items():
                    if _is_stored_apart(path) and _sha256(content) == digest:
                        self._send_content(content, {"ETag": f'"{digest}"'})
                        return
        raise _Refused(404, "", "not stored")

    def _send_content(self, content: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        status, start, end = 200, 0, len(content)
        if wanted and (wanted[1] or wanted[2]):
            if wanted[1]:
                start = int(wanted[1])
                end = min(end, int(wanted[2]) + 1) if wanted[2] else end
            else:
                start = max(0, end - int(wanted[2]))
            if start >= len(content):
                headers = headers | {"Content-Range": f"bytes */{len(content)}"}
                self._refuse(_Refused(416, "", "range not satisfiable"), headers)
                return
            status = 206
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        self._send(status, content[start:end], headers | {"Accept-Ranges": "bytes"})

    def _send_json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _refuse(self, refusal: _Refused, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {}) | {"X-Error-Message": str(refusal), "Content-Type": "application/json"}
        if refusal.code and not self.hub.terse:
            headers["X-Error-Code"] = refusal.code
        self._send(refusal.status, json.dumps({"error": str(refusal)}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self._fault.cut_after if self._fault is not None else None
        self.wfile.write(body if cut is None else body[:cut])
        self._sent = len(body) if cut is None else min(cut, len(body))
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True


def _front_matter(card: str) -> object:
    _, *front = card.split("---\n")
    return yaml.safe_load(front[0]) if front else None


def _is_stored_apart(path: str) -> bool:
    return path.endswith(STORED_APART)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _folders(files: Mapping[str, bytes]) -> set[str]:
    folders = {""}
    for path in files:
        parts = path.split("/")[:-1]
        folders |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
    return folders


def _listing(files: Mapping[str, bytes], folder: str, recursive: bool) -> Iterator[dict[str, object]]:
    """Entries of a folder as the hub's tree call describes them."""
    prefix = f"{folder}/" if folder else ""
    for path in sorted(_folders(files) - {"", folder}):
        if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :]):
            yield {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
    for path, content in sorted(files.items()):
        if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :]):
            entry: dict[str, object] = {
                "type": "file",
                "oid": _git_hash(content),
                "size": len(content),
                "path": path,
            }
            if _is_stored_apart(path):
                entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
            yield entry
