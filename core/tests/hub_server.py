"""A real HTTP server on this machine that answers as the Hugging Face hub does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 20_000
"""Larger files are answered with a redirection to another host that stores them, as the hub does."""


@dataclass
class Repository:
    """Commits and the branches and tags that point to them."""

    commits: dict[str, Path]
    refs: dict[str, str]
    token: str | None = None
    gated: bool = False

    def commit_of(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    authorization: str | None

    @property
    def file(self) -> str | None:
        """The file that is asked for, if one is."""
        return self.path.split("/resolve/", 1)[1].split("/", 1)[1] if "/resolve/" in self.path else None


@dataclass
class Hub:
    """What the server knows, how it behaves, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    status: int | None = None
    """Answer everything with this."""
    cut_after: int | None = None
    """Break the connection after so many bytes of a large file."""
    requests: list[Request] = field(default_factory=list)

    def asked_for(self) -> set[str]:
        return {request.file for request in self.requests if request.file}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(self.command, path, self.headers["Authorization"]))
        if self.hub.status is not None:
            self.send(self.hub.status, b"trouble")
        elif path.startswith("/stored/"):
            self.send_content(Path(path.removeprefix("/stored")).read_bytes(), {})
        else:
            parts = path.removeprefix("/api/models").strip("/").split("/")
            self.respond_for("/".join(parts[:2]), parts[2:], is_api=path.startswith("/api/"))

    def respond_for(self, repo_id: str, rest: list[str], is_api: bool) -> None:
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if repository.token and self.headers["Authorization"] != f"Bearer {repository.token}":
            if repository.gated:
                return self.refuse(403, "GatedRepo", f"Access to model {repo_id} is restricted")
            return self.refuse(401, "RepoNotFound", "Repository not found")
        commit = repository.commit_of(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        folder = repository.commits[commit]
        if is_api:
            return self.describe(repo_id, commit, folder, as_tree=rest[:1] == ["tree"])
        path = folder.joinpath(*rest[2:])
        if not path.is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.send_file(path, commit)

    def describe(self, repo_id: str, commit: str, folder: Path, as_tree: bool) -> None:
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        content: Any
        if as_tree:
            content = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": digest(path)}
                for name, path in files.items()
            ]
        else:
            content = {
                **{"_id": "0", "id": repo_id, "modelId": repo_id, "sha": commit, "private": False, "gated": False},
                **{"tags": [], "downloads": 0, "siblings": [{"rfilename": name} for name in sorted(files)]},
            }
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send_file(self, path: Path, commit: str) -> None:
        size = path.stat().st_size
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest(path)}"'}
        if size > LARGE:
            location = f"http://localhost:{self.server.server_address[1]}/stored{path}"
            linked = {"X-Linked-Size": str(size), "X-Linked-ETag": f'"{digest(path)}"', "Location": location}
            self.send(302, b"", headers | linked)
        else:
            self.send_content(path.read_bytes(), headers)

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        cut = self.hub.cut_after
        if cut is not None and len(content) > LARGE:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + cut])
            self.close_connection = True
        else:
            self.send(206 if start else 200, content[start:], headers)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ClosingServer(ThreadingHTTPServer):
    """Takes its open connections with it when it is closed."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that is gone is no trouble."""


class Server:
    """The hub on a port of its own, which can go away and come back."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.port = 0
        self.start()

    def start(self) -> None:
        handler = type("BoundHandler", (Handler,), {"hub": self.hub})
        self.server = ClosingServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def publish(hub: Hub, folder: Path, repo_id: str = "owner/model", **options: Any) -> str:
    """Put a folder on the hub as the only commit of a repository; gives the commit."""
    commit = hashlib.sha1(str(folder).encode()).hexdigest()
    hub.repositories[repo_id] = Repository({commit: folder}, {"main": commit}, **options)
    return commit
