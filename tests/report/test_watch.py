"""The page that `lorabench watch` serves: what changes in the folder is told, and nothing else is given to anyone."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lorabench.core.errors import InputError
from lorabench.core.locks import try_lock
from lorabench.records.store import LEASE_NAME, METRICS_NAME
from lorabench.report.serving import PageServer
from lorabench.report.watch import Watched
from tests.report.synthetic import SyntheticResults, Truth
from tests.report.test_progress import asked_of, write_asked


@pytest.fixture
def results(tmp_path: Path) -> SyntheticResults:
    return SyntheticResults(tmp_path, Truth(by_rank={8: 0.05}), num_documents=10)


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer() as opened:
        yield opened


def ask(server: PageServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def page_of(server: PageServer) -> str:
    status, page = ask(server, server.root)
    assert status == 200
    return page


@contextmanager
def listening(server: PageServer) -> Iterator[Iterator[tuple[str, str]]]:
    """Events, each as its name and its data, as a browser reads them from the socket."""
    address = urlsplit(server.address)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(f"GET {address.path}events HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        with connection.makefile("r", encoding="utf-8", newline="\n") as lines:
            assert "200" in lines.readline()
            while lines.readline().strip():
                pass
            yield events_of(lines)


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    name = ""
    for line in lines:
        field, _, value = line.rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, value


def test_what_changes_is_told_and_only_then_there_is_another_page(
    results: SyntheticResults, server: PageServer
) -> None:
    write_asked(results.output_dir, asked_of(results.grid(), "queued"))
    watched = Watched(results.store, server)
    watched.look()
    first = page_of(server)
    assert "2 of 3 runs of synthetic have ended, 1 to come" in first
    with listening(server) as events:
        assert next(events) == ("version", f"{os.getpid()}-1")
        assert next(events) == ("steps", "{}")
        for _ in range(3):
            watched.look()
        assert page_of(server) == first
        results.grid(ranks=[32])
        watched._due_at = 0.0
        watched.look()
        assert next(events) == ("version", f"{os.getpid()}-2")
    assert f'data-version="{os.getpid()}-2"' in page_of(server)
    assert "rank 32" in page_of(server)


def test_a_run_under_way_says_how_far_it_is(results: SyntheticResults, server: PageServer) -> None:
    asked = asked_of(results.grid(), "doing", "../../outside")
    write_asked(results.output_dir, asked.model_copy(update={"num_steps": {"doing": 180}}))
    folder = results.store.run_dir("doing")
    folder.mkdir()
    lease = try_lock(folder / LEASE_NAME)
    assert lease is not None
    watched = Watched(results.store, server)
    watched.look()
    assert "2 of 4 runs of synthetic have ended, 1 under way, 1 to come" in page_of(server)
    assert "Wait for what is planned: 2 runs" in page_of(server)
    line = json.dumps({"kind": "step", "step": 40, "loss": 2.5, "tokens_per_second": 1234.6})
    (folder / METRICS_NAME).write_text(f'{line}\n{{"kind": "evaluation", "step": 40}}\n{{"kind": "step", "st')
    page = page_of(server)
    watched.look()
    with listening(server) as events:
        told = dict(next(events) for _ in range(2))
        assert json.loads(told["steps"]) == {"doing": "step 40 of about 180, loss 2.500, 1,235 tokens/s"}
        assert page_of(server) == page, "steps alone are no reason for another page"
        os.close(lease)
        watched._due_at = 0.0
        watched.look()
        assert {next(events)[0], next(events)[0]} == {"version", "steps"}
    assert "2 to come; the same command goes on with it" in page_of(server)


def test_nothing_but_the_page_is_served_and_only_under_its_own_name(
    results: SyntheticResults, server: PageServer
) -> None:
    results.grid()
    Watched(results.store, server).look()
    port, root = server.server_port, server.root
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:8000", "[::1]:8000", "LOCALHOST"):
        assert ask(server, root, Host=host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[", "a@localhost.evil"):
        for path in (root, f"{root}events"):
            status, text = ask(server, path, Host=host)
            assert status == 421
            assert "report" not in text
    for path in ("/", "/etc/passwd", f"{root}../../etc/passwd", f"{root}report.html", "/events", f"/{'a' * 22}/", "//"):
        assert ask(server, path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert ask(server, root, method)[0] == 501


def test_it_listens_on_loopback_alone_and_a_port_that_is_taken_is_said(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(InputError, match=rf"--port {server.server_port}: .*give another"):
        PageServer(server.server_port)
