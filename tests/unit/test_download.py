"""`download` against a real server on this machine that does all a server can do wrong."""

from __future__ import annotations

import base64
import errno
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from redis_worker.builtin.download import DOWNLOADED, SKIPPED, DownloadError, download
from redis_worker.vocabulary.processor import declaration_of
from tests.tls import Certificates, make_certificates

BODY = bytes(range(256)) * 1000
HEAD = b"HTTP/1.1 200 OK\r\n"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.pages[self.path.partition("?")[0]](self)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.wfile.write(part)

    def redirect(self, location: str, status: int = 302) -> None:
        self.send(b"HTTP/1.1 %d Go\r\nLocation: %b\r\n\r\n" % (status, location.encode()))

    def hang(self) -> None:
        """Say nothing more until the client goes away."""
        self.rfile.read(1)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for every thread and its socket

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Callable[[Handler], None]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    def url(self, path: str, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.server_port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client went away, as it should


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server()
    if tls is not None:
        # The handshake happens in the handler's thread, where it fails without stopping the server.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.pages["/file"] = lambda h: h.send(HEAD, b"Content-Length: %d\r\n\r\n" % len(BODY), BODY)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The download directory; what lies beside it must stay as it is."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_DIR", str(folder))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def refusal(*arguments: Any, kind: type[Exception] = DownloadError) -> str:
    with pytest.raises(kind) as caught:
        download(list(arguments))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def test_declaration() -> None:
    declaration = declaration_of(download)
    assert (declaration.name, declaration.execution) == ("download", "thread")
    assert declaration.summary.startswith("Download a file")


def test_the_module_loads_without_the_network_modules() -> None:
    code = "import sys, redis_worker.builtin.download; print(*{'http.client', 'ssl'} & {*sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


# What works


def test_success_then_skipped(server: Server, folder: Path) -> None:
    url = server.url("/file?a=b%20c#fragment")
    assert download([url, "some/where/file.bin"]) == DOWNLOADED == "Downloaded successfully"
    assert (folder / "some/where/file.bin").read_bytes() == BODY
    assert download([url, "some/where/file.bin"]) == SKIPPED == "File already exists, skipping download"
    assert [path for path, _ in server.requests] == ["/file?a=b%20c"]
    assert files(folder) == ["some/where/file.bin"]


def test_a_folder_in_the_working_directory_is_the_default(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_WORKER_DOWNLOAD_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert download([server.url("/file"), "file"]) == DOWNLOADED
    assert (tmp_path / "downloads/file").read_bytes() == BODY
    assert "out of the download directory" in refusal(server.url("/file"), "../file", kind=ValueError)


def test_a_missing_download_directory_is_made(server: Server, folder: Path) -> None:
    folder.rmdir()
    assert download([server.url("/file"), "file"]) == DOWNLOADED
    assert (folder / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\r\n" + BODY, BODY),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n", b"abcde"),
    ],
    ids=["until the end", "empty", "chunked"],
)
def test_bodies_of_every_framing(server: Server, folder: Path, sent: bytes, expected: bytes) -> None:
    server.pages["/x"] = lambda h: h.send(HEAD, sent)
    assert download([server.url("/x"), "x"]) == DOWNLOADED
    assert (folder / "x").read_bytes() == expected


def test_redirects_are_followed(server: Server, folder: Path) -> None:
    server.pages["/absolute"] = lambda h: h.redirect(server.url("/a/relative"), 301)
    server.pages["/a/relative"] = lambda h: h.redirect("../ö x?q=1", 307)
    server.pages["/%C3%B6%20x"] = lambda h: h.redirect("/file", 308)
    assert download([server.url("/absolute"), "x"]) == DOWNLOADED
    assert (folder / "x").read_bytes() == BODY
    assert server.requests[2][0] == "/%C3%B6%20x?q=1"


def test_a_url_outside_ascii_is_sent_encoded(server: Server, folder: Path) -> None:
    server.pages["/%C3%B6"] = server.pages["/file"]
    assert download([server.url("/ö?ä=%20"), "x"]) == DOWNLOADED
    assert server.requests[0][0] == "/%C3%B6?%C3%A4=%20"


def test_credentials_of_the_url_are_sent_to_its_host_only(server: Server, folder: Path) -> None:
    with serving() as other:
        server.pages["/away"] = lambda h: h.redirect(other.url("/file"))
        url = server.url("/away").replace("//", "//user:p%40ss@")
        assert download([url, "x"]) == DOWNLOADED
        assert server.requests[0][1]["Authorization"] == f"Basic {base64.b64encode(b'user:p@ss').decode()}"
        assert server.requests[0][1]["Host"] == f"127.0.0.1:{server.server_port}"
        assert "Authorization" not in other.requests[0][1]


def test_proxies_of_the_environment_are_ignored(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert download([server.url("/file"), "x"]) == DOWNLOADED


def test_two_downloads_of_one_target_leave_one_whole_file(server: Server, folder: Path) -> None:
    both = threading.Barrier(2)

    def page(content: bytes) -> Callable[[Handler], None]:
        def send(handler: Handler) -> None:
            handler.send(HEAD, b"Content-Length: %d\r\n\r\n" % len(content), content[:1000])
            both.wait()  # both have begun before either ends
            handler.send(content[1000:])

        return send

    contents = [b"a" * 300_000, b"b" * 200_000]
    server.pages.update({"/a": page(contents[0]), "/b": page(contents[1])})
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda path: download([server.url(path), "new/x"]), ["/a", "/b"]))
    assert DOWNLOADED in results
    assert set(results) <= {DOWNLOADED, SKIPPED}
    assert (folder / "new/x").read_bytes() in contents
    assert files(folder) == ["new/x"]


# Arguments, URLs and addresses


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "download takes a URL and a path, got 0 arguments"),
        (["http://h/"], "download takes a URL and a path, got 1 arguments"),
        (["http://h/", "x", "y"], "download takes a URL and a path, got 3 arguments"),
        ([1, "x"], "the URL should be a string, got a number"),
        (["http://h/", None], "the path should be a string, got null"),
    ],
)
def test_arguments(arguments: list[Any], text: str) -> None:
    assert refusal(*arguments, kind=ValueError) == text


SPACE = "the URL contains a space or control character, which should be percent-encoded"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file:///etc/passwd", "only http and https URLs can be downloaded, not file"),
        ("ftp://h/x", "only http and https URLs can be downloaded, not ftp"),
        ("/etc/passwd", "only http and https URLs can be downloaded, not others"),
        ("http://", "the URL names no valid host and port"),
        ("http://h:0/", "the URL names no valid host and port"),
        ("http://h/a b", SPACE),
        ("http://h/\r\nX: y", SPACE),
        ("\thttp://h/", SPACE),
        ("http://user:secret/", "the URL is not valid"),
        ("http://user:secret@h:secret/", "the URL is not valid"),
        ("http://user:secret@h\u2100/", "the URL is not valid"),
        ("http://user:secret@[::1/", "the URL is not valid"),
        ("http://user:secret@.h/", "the URL is not valid"),
        (f"http://{'a' * 64}/", "the URL is not valid"),
        (f"http://{'a.' * 200}/", "the URL names no valid host and port"),
    ],
)
def test_urls_that_are_refused(url: str, text: str, folder: Path) -> None:
    assert refusal(url, "x", kind=ValueError) == text


LINK_LOCAL = [
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "[fe80::1]",
    "[febf::1]",
    "[::ffff:169.254.169.254]",
    "[::169.254.169.254]",
    "[::ffff:0:169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::1]",
]
NO_LINK_LOCAL = "has a link-local address, and those may not be downloaded from"


@pytest.mark.parametrize("host", LINK_LOCAL)
def test_link_local_addresses_are_refused(host: str, server: Server, folder: Path) -> None:
    assert refusal(f"http://{host}/x", "x", kind=ValueError).endswith(NO_LINK_LOCAL)
    server.pages["/there"] = lambda h: h.redirect(f"http://{host}/x")
    assert refusal(server.url("/there"), "x", kind=ValueError).endswith(NO_LINK_LOCAL)
    assert files(folder) == []


def test_a_name_is_resolved_once_and_refused_for_any_link_local_address(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_port))
    bad = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))
    scoped = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%lo", 80, 0, 1))
    # A name server that answers well the first time and badly ever after.
    answers = iter([[good], [good, bad], [scoped]])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: next(answers))
    assert download(["http://rebinding.test/file", "x"]) == DOWNLOADED
    assert server.requests[0][1]["Host"] == "rebinding.test"
    assert refusal("http://rebinding.test/file", "y", kind=ValueError) == f"rebinding.test {NO_LINK_LOCAL}"
    assert refusal("http://rebinding.test/file", "y", kind=ValueError) == f"rebinding.test {NO_LINK_LOCAL}"
    assert files(folder) == ["x"]


def test_the_next_address_is_tried_where_one_does_not_answer(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        addresses = [closed.getsockname(), ("127.0.0.1", server.server_port)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    assert download(["http://two.test/file", "x"]) == DOWNLOADED


def test_redirects_to_other_schemes_and_in_circles_are_refused(server: Server, folder: Path) -> None:
    server.pages["/file-scheme"] = lambda h: h.redirect("file:///etc/passwd")
    server.pages["/loop"] = lambda h: h.redirect("/loop")
    server.pages["/nowhere"] = lambda h: h.send(b"HTTP/1.1 302 Found\r\n\r\n")
    text = refusal(server.url("/file-scheme"), "x", kind=ValueError)
    assert text == "only http and https URLs can be downloaded, not file"
    assert refusal(server.url("/loop"), "x") == "redirected more than 10 times"
    assert len([path for path, _ in server.requests if path == "/loop"]) == 11
    assert refusal(server.url("/nowhere"), "x") == "HTTP error: status code 302"
    assert files(folder) == []


# Paths


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "out/x", "out/../x", "link", "deep/out/x", "dangling"])
def test_paths_that_lead_out_are_refused(path: str, server: Server, folder: Path) -> None:
    outside = folder.parent / "outside"
    (outside / "kept").write_text("kept")
    (folder / "deep").mkdir()
    (folder / "out").symlink_to(outside)
    (folder / "deep/out").symlink_to("../../outside")
    (folder / "link").symlink_to(outside / "kept")
    (folder / "dangling").symlink_to(outside / "new")
    text = refusal(server.url("/file"), path, kind=ValueError)
    assert text == "the path leads out of the download directory"
    assert server.requests == []
    assert files(outside) == ["kept"]
    assert (outside / "kept").read_text() == "kept"


def test_a_sibling_of_the_folder_with_its_name_at_the_beginning_is_outside(server: Server, folder: Path) -> None:
    sibling = folder.with_name(f"{folder.name}-of-others")
    sibling.mkdir()
    for path in (f"../{sibling.name}/x", str(sibling / "x"), f"../{folder.name}x"):
        text = refusal(server.url("/file"), path, kind=ValueError)
        assert text == "the path leads out of the download directory"
    assert (files(sibling), server.requests) == ([], [])


def test_paths_that_come_back_in_are_fine(server: Server, folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    (folder / "dangling").symlink_to("real/later")
    for path in ("a/../one", "../downloads/two", str(folder / "three"), "link/four", "dangling"):
        assert download([server.url("/file"), path]) == DOWNLOADED
    assert files(folder / "real") == ["four", "later"]
    assert {"one", "two", "three"} <= set(files(folder))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("", "the path is not a valid file name"),
        ("a\0b", "the path is not a valid file name"),
        ("\ud800", "the path is not a valid file name"),
        ("a/" * 3000 + "x", "the path is not a valid file name"),
        (".", "the path names a directory, not a file"),
        ("folder", "the path names a directory, not a file"),
        ("new/", "the path names a directory, not a file"),
        ("circle", "the path is a symbolic link that leads nowhere"),
    ],
)
def test_paths_that_name_no_file(path: str, text: str, server: Server, folder: Path) -> None:
    (folder / "folder").mkdir()
    (folder / "circle").symlink_to("circle")
    assert refusal(server.url("/file"), path, kind=ValueError) == text
    assert server.requests == []


def test_a_folder_that_becomes_a_link_on_the_way_is_not_followed(server: Server, folder: Path) -> None:
    (folder / "sub").mkdir()

    def swap(handler: Handler) -> None:
        (folder / "sub").rmdir()
        (folder / "sub").symlink_to(folder.parent / "outside")
        handler.send(HEAD, b"Content-Length: 2\r\n\r\nok")

    server.pages["/swap"] = swap
    assert refusal(server.url("/swap"), "sub/x").startswith("the file cannot be written: ")
    assert files(folder.parent / "outside") == []


def test_a_link_that_takes_the_name_on_the_way_is_not_followed(server: Server, folder: Path) -> None:
    kept = folder.parent / "outside/kept"
    kept.write_text("kept")

    def link(handler: Handler) -> None:
        (folder / "x").symlink_to(kept)
        handler.send(HEAD, b"Content-Length: 2\r\n\r\nok")

    server.pages["/link"] = link
    assert "symbolic link" in refusal(server.url("/link"), "x", kind=ValueError)
    assert kept.read_text() == "kept"
    assert files(folder) == ["x"]


def test_a_file_made_meanwhile_is_kept(server: Server, folder: Path) -> None:
    def make(handler: Handler) -> None:
        (folder / "x").write_text("mine")
        handler.send(HEAD, b"Content-Length: 2\r\n\r\nok")

    server.pages["/make"] = make
    assert download([server.url("/make"), "x"]) == SKIPPED
    assert (folder / "x").read_text() == "mine"
    assert files(folder) == ["x"]


def test_errors_of_the_file_system_are_a_sentence(server: Server, folder: Path) -> None:
    (folder / "file").write_text("")
    assert refusal(server.url("/file"), "file/x") == "the file cannot be written: Not a directory"
    assert refusal(server.url("/file"), "n" * 300) == "the file cannot be written: File name too long"
    assert refusal(server.url("/file"), "n" * 300 + "/x") == "the file cannot be written: File name too long"


def test_a_full_disk_leaves_no_file(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert refusal(server.url("/file"), "x") == "the file cannot be written: No space left on device"
    assert files(folder) == []


# Servers that fail


def trickle(handler: Handler) -> None:
    """Send a byte at a time: each read is quick, and the whole never ends."""
    handler.send(HEAD, b"Content-Length: 1000000\r\n\r\n")
    while True:
        handler.send(b".")
        threading.Event().wait(0.005)


def trickle_head(handler: Handler) -> None:
    while True:
        handler.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        threading.Event().wait(0.005)


def begin_and_hang(handler: Handler) -> None:
    handler.send(HEAD, b"Content-Length: 900\r\n\r\nx")
    handler.hang()


TOO_LARGE = "the file is larger than the bound of 1000 bytes"
TOO_LONG = "the download took longer than 0.2 seconds"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

FAILURES: dict[str, tuple[Callable[[Handler], None], str]] = {
    "404": (lambda h: h.send_error(404), "HTTP error: status code 404"),
    "500": (lambda h: h.send_error(500), "HTTP error: status code 500"),
    "304": (lambda h: h.send(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "HTTP error: status code 304"),
    "cut": (
        lambda h: h.send(HEAD, b"Content-Length: 900\r\n\r\n", b"x" * 500),
        "the connection ended after 500 of 900 bytes",
    ),
    "cut before the body": (
        lambda h: h.send(HEAD, b"Content-Length: 900\r\n\r\n"),
        "the connection ended after 0 of 900 bytes",
    ),
    "cut in a chunk": (
        lambda h: h.send(HEAD, CHUNKED, b"5\r\nab"),
        "the connection ended after 2 of an unknown number of bytes",
    ),
    "cut between chunks": (
        lambda h: h.send(HEAD, CHUNKED, b"2\r\nab\r\n"),
        "the connection ended after 2 of an unknown number of bytes",
    ),
    "chunk of less than nothing": (
        lambda h: h.send(HEAD, CHUNKED, b"-1\r\n", b"x" * 5000),
        TOO_LARGE,
    ),
    "cut in the headers": (
        lambda h: h.send(HEAD, b"Content-Type: text/plain\r\n"),
        "the connection to 127.0.0.1 failed: it ended within the headers",
    ),
    "declared too large": (lambda h: h.send(HEAD, b"Content-Length: 1001\r\n\r\n"), TOO_LARGE),
    "too large for a number": (
        lambda h: h.send(HEAD, b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n"),
        TOO_LARGE,
    ),
    "too large": (lambda h: h.send(HEAD, b"\r\n", b"x" * 1001), TOO_LARGE),
    "too large in chunks": (lambda h: h.send(HEAD, CHUNKED, b"3e9\r\n", b"x" * 1001), TOO_LARGE),
    "no answer": (lambda h: None, "127.0.0.1 did not answer in HTTP"),
    "no HTTP": (lambda h: h.send(b"+OK redis\r\n"), "127.0.0.1 did not answer in HTTP"),
    "silent": (lambda h: h.hang(), TOO_LONG),
    "silent in the body": (begin_and_hang, TOO_LONG),
    "trickling head": (trickle_head, TOO_LONG),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_sentence_and_leaves_no_file(
    name: str, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, text = FAILURES[name]
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_MAX_BYTES", "1000")
    if text == TOO_LONG:
        monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_TIMEOUT", "0.2")
    server.pages["/x"] = page
    assert refusal(server.url("/x"), "sub/x") == text
    assert files(folder) == []


def test_a_body_that_trickles_is_ended_by_the_total_time(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_TIMEOUT", "0.2")
    server.pages["/x"] = trickle
    assert refusal(server.url("/x"), "x") == TOO_LONG
    assert files(folder) == []


def test_a_silent_server_is_given_up_before_the_total_time(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_worker.builtin.download._SILENCE", 0.1)
    server.pages["/x"] = lambda h: h.hang()
    assert refusal(server.url("/x"), "x") == "127.0.0.1 was silent for 0.1 seconds"


def test_an_exact_fit_is_not_too_large(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_MAX_BYTES", str(len(BODY)))
    assert download([server.url("/file"), "x"]) == DOWNLOADED


@pytest.mark.parametrize("name", ["REDIS_WORKER_DOWNLOAD_MAX_BYTES", "REDIS_WORKER_DOWNLOAD_TIMEOUT"])
@pytest.mark.parametrize("value", ["many", "0", "-1", "inf", "nan"])
def test_settings_are_checked(name: str, value: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    text = f"the environment variable {name} should be a number above 0"
    assert refusal("http://127.0.0.1/", "x", kind=ValueError) == text


def test_a_server_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    text = refusal(f"http://user:secret@127.0.0.1:{port}/?token=secret", "x")
    assert text == "the connection to 127.0.0.1 failed: Connection refused"

    def unknown(*args: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert refusal("http://no.test/", "x") == "the connection to no.test failed: Name or service not known"


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="there is no list of open files here")
def test_no_descriptor_stays_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_MAX_BYTES", "1000")
    before = os.listdir("/dev/fd")
    with serving() as server:
        for name in ("404", "cut", "cut in a chunk", "too large", "no HTTP", "cut in the headers"):
            server.pages["/x"] = FAILURES[name][0]
            refusal(server.url("/x"), "a/b/x")
        server.pages["/x"] = lambda h: h.send(HEAD, b"\r\nfine")
        assert download([server.url("/x"), "a/b/x"]) == DOWNLOADED
    assert os.listdir("/dev/fd") == before


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[Server]:
    with serving(certificates.context()) as server:
        yield server


def test_tls_is_verified_against_the_host_name(
    tls_server: Server, certificates: Certificates, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tls_server.url("/file", "https", "localhost")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    untrusted = refusal(url, "x")
    assert untrusted.startswith("the connection to localhost failed: self")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    assert download([url, "x"]) == DOWNLOADED
    assert (folder / "x").read_bytes() == BODY
    mismatch = refusal(tls_server.url("/file", "https", "127.0.0.1"), "y")
    assert mismatch.startswith("the connection to 127.0.0.1 failed: IP address mismatch")
    assert files(folder) == ["x"]


def test_tls_with_a_server_that_has_none(server: Server, folder: Path) -> None:
    text = refusal(server.url("/file", "https"), "x")
    assert text.startswith("the connection to 127.0.0.1 failed: ")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_takes_the_connection(scheme: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_WORKER_DOWNLOAD_TIMEOUT", "0.2")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        assert refusal(f"{scheme}://127.0.0.1:{port}/", "x") == TOO_LONG
