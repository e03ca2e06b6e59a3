"""What several tests need. Tests that need FedML, torch or Mosquitto say so when they are skipped."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable

import pytest

from fedml_fedfab.install import fedml_is_here
from fedml_fedfab.model_format import decode_model, digest_of, encode_model
from fedml_fedfab.tensors import store

ENCODINGS = ["safetensors", "json"]
SHAPES: list[tuple[int, ...]] = [(), (0,), (3, 0, 2), (8,), (2, 4), (1, 2, 2, 2)]
REPOSITORY = Path(__file__).resolve().parents[2]

needs_fedml = pytest.mark.skipif(not fedml_is_here(), reason="FedML is not installed in this environment")
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes certificates, is missing"
)
needs_mosquitto = pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not on PATH")


def same(before: Any, after: Any) -> bool:
    a, b = store("x", before), store("x", after)
    return a == b and type(before) is type(after)


def round_trip(model: Any, encoding: str) -> Any:
    encoded = encode_model(model, encoding)
    assert encoded.digest == digest_of(encoded.data)
    return decode_model(encoded.data, encoded.media_type, like=model)


class Seen:
    """A request as the stand-in for the coordinator got it."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


class StandIn:
    """Answers HTTP as a test says: ``answer`` is called with each request."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answer: Callable[[Seen], Any] = lambda _seen: json_reply(404, {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, self.path, headers, self.rfile.read(length))
                outer.seen.append(seen)
                reply = outer.answer(seen)
                if reply is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, head, body = reply
                self.send_response(status)
                for name, value in {**head, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = handle_one  # noqa: N815

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def speak_tls(self, cert: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def json_reply(status: int, body: object, **headers: str) -> Any:
    return status, {"content-type": "application/json", **headers}, json.dumps(body).encode()


def problem(status: int, code: str, **facts: object) -> Any:
    body = {"status": status, "code": code, "detail": f"detail of {code}", **facts}
    return status, {"content-type": "application/problem+json"}, json.dumps(body).encode()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


class Mosquitto:
    """A broker of its own on a free port, which can be stopped and started again there. ``more``: lines of its file."""

    def __init__(self, folder: Path, more: str = "allow_anonymous true\n") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._config = folder / "mosquitto.conf"
        # As root it would change to a user who cannot read the test's files.
        self._config.write_text(f"user {getpass.getuser()}\nlistener {self.port} 127.0.0.1\n{more}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(shutil.which("mosquitto")), "-c", str(self._config)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        # It says "running" when it listens.
        for line in self._process.stderr:
            if b"running" in line:
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return
        raise RuntimeError("mosquitto did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Authority:
    """A certificate authority of this test's, and certificates by it for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
                  "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip

    def issue(self, name: str, host: str = "127.0.0.1") -> tuple[Path, Path]:
        """A certificate and its key."""
        (self.folder / "extensions").write_text(f"subjectAltName=IP:{host}\n")
        self._run("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        self._run("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                  "-CAcreateserial", "-extfile", "extensions", "-out", f"{name}.pem")  # fmt: skip
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _run(self, *arguments: str) -> None:
        command = [str(shutil.which("openssl")), *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.stop()
