"""The coordinator's HTTP API as this package uses it (docs/protocol.md, "HTTP").

One object per node; each thread gets a connection pool of its own. Whatever cannot be reached is waited for, with log
lines that say what is awaited and why.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping
from urllib.parse import quote

import requests

from .errors import CoordinatorError, FedfabError
from .log import LOG

READ_TIMEOUT_S = 120.0
"""A model of some 20 MB takes a real Fabric network several seconds; a busy one longer."""
_STALL_S = 5.0
"""How long a connection may take, and a block of a request to go out: requests knows one time for both."""

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_TELL_EVERY_S = 30.0


class UnreachableError(FedfabError):
    """No answer, or one that asks to come again: the same call may succeed later."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Answer:
    """An answer of the coordinator, any status that is not transient."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON. Raises ``CoordinatorError`` where it is none: something else answers at this address."""
        import json

        try:
            return json.loads(self.body)
        except ValueError as error:
            raise CoordinatorError(
                f"what answers at coordinator_url is no coordinator (HTTP {self.status}, no JSON): check the address",
                status=self.status,
            ) from error

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document of a refusal (RFC 9457); empty where there is none."""
        if "problem+json" not in self.headers.get("content-type", ""):
            return {}
        document = self.json()
        return document if isinstance(document, dict) else {}

    @property
    def code(self) -> str:
        """The stable code of a refusal, or ""."""
        return str(self.problem.get("code", ""))

    @property
    def detail(self) -> str:
        """What was wrong, in the coordinator's words."""
        return str(self.problem.get("detail", "")) or f"HTTP {self.status}"


class _Bearer(requests.auth.AuthBase):
    """Sets the token and nothing else: without it requests would take what ~/.netrc has for this host."""

    def __init__(self, token: str) -> None:
        self.__token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.__token:
            request.headers["Authorization"] = f"Bearer {self.__token}"
        return request


class Coordinator:
    """The coordinator at one address, for one run."""

    def __init__(self, url: str, run: str, token: str = "", *, ca_file: str = "") -> None:
        self.url = url
        self.run_segment = quote(run, safe="")
        """The run as it stands in paths."""
        self.__token = token
        self._ca_file = ca_file
        self._threads = threading.local()

    def call(
        self,
        method: str,
        path: str,
        *,
        json: object | None = None,
        data: bytes | None = None,
        media_type: str = "",
        params: dict[str, str] | None = None,
        token: str | None = None,
        known: str = "",
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> Answer:
        """One call. ``path`` is absolute or under the coordinator's address; ``known`` an ETag of what is here already.

        Raises ``UnreachableError``; refusals are answers.
        """
        headers = {"Accept": "*/*"}
        if data is not None:
            headers.update({"Content-Type": media_type, "Content-Digest": content_digest(data)})
        if known:
            headers["If-None-Match"] = known
        try:
            response = self._session().request(
                method,
                path if path.startswith("http") else self.url + path,
                params=params,
                json=json,
                # As a file it goes out in blocks, each with a time of its own. In one piece all of it would have to be
                # out within that time, however large it is and however slow the line.
                data=None if data is None else io.BytesIO(data),
                headers=headers,
                auth=_Bearer(self.__token if token is None else token),
                timeout=(_STALL_S, read_timeout_s),
                # Said here: over a session's REQUESTS_CA_BUNDLE would win.
                verify=self._ca_file or None,
                allow_redirects=False,
            )
        except requests.exceptions.RequestException as error:
            raise UnreachableError(_reason(error)) from error
        answer = Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)
        if answer.status in _TRANSIENT:
            raise UnreachableError(f"HTTP {answer.status} {answer.code}".strip(), _retry_after(answer))
        if 300 <= answer.status < 400 and answer.status != 304:
            raise CoordinatorError(f"{self.url} redirects: write the address it redirects to as coordinator_url")
        return answer

    def patiently(
        self,
        awaited: str,
        call: Callable[[], Answer],
        *,
        give_up: threading.Event | None = None,
    ) -> Answer | None:
        """``call`` until it is answered; None when ``give_up`` is set. ``awaited`` is told in the log."""
        pause_s, told_at = _FIRST_PAUSE_S, float("-inf")
        away = False
        while give_up is None or not give_up.is_set():
            try:
                answer = call()
            except UnreachableError as error:
                away = True
                if time.monotonic() - told_at >= _TELL_EVERY_S:
                    LOG.warning("waiting for the coordinator at %s: %s (%s)", self.url, awaited, error)
                    told_at = time.monotonic()
                wait(max(pause_s, error.retry_after_s), give_up)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if away:
                LOG.info("the coordinator at %s answers again: %s", self.url, awaited)
            return answer
        return None

    # What the server asks.

    def run_view(self) -> dict[str, Any] | None:
        """The run as the coordinator has it; None where it is not known. Waits for a coordinator that is away."""
        answer = self._ask("what it knows of the run", "GET", self._path())
        if answer.status == 404:
            return None
        view = self._expect(answer, "what it knows of the run").json()
        if not isinstance(view, dict):
            raise CoordinatorError(f"{self.url} does not speak of runs: check coordinator_url")
        return view

    def define_run(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        """Make the run known, by FedML's sections."""
        answer = self._ask("making the run known", "POST", "/v1/runs", json=sections)
        view: dict[str, Any] = self._expect(answer, "making the run known").json()
        return view

    def put_global(self, data: bytes, media_type: str, round_id: str | None, accuracy: float | None = None) -> Answer:
        """Hand over the global model that ends a round, or, with None, the one that the run starts from.

        ``accuracy``: what the server measured of it, kept with the round.
        """
        path = self._path("global") if round_id is None else self._path("rounds", round_id, "global")
        which = "the initial global model" if round_id is None else f"the global model of round {round_id}"
        params = None if accuracy is None or round_id is None else {"accuracy": repr(accuracy)}
        return self._ask(f"handing over {which}", "PUT", path, data=data, media_type=media_type, params=params)

    def receipts(self, round_id: str) -> list[dict[str, Any]]:
        """The receipts of a round's models, as the chain has them."""
        found: list[dict[str, Any]] = []
        params = {"limit": "1000"}
        while True:
            what = f"the receipts of round {round_id}"
            answer = self._ask(what, "GET", self._path("rounds", round_id, "models"), params=params)
            page = self._expect(answer, what).json()
            found += page["receipts"]
            if page.get("next") is None:
                return found
            params = {**params, "after": str(page["next"])}

    def model(self, round_id: str, client: int) -> Answer:
        """One local model, byte for byte."""
        what = f"the model of client {client} in round {round_id}"
        return self._expect(self._ask(what, "GET", self._path("rounds", round_id, "models", str(client))), what)

    def received(self, wait_s: int) -> Answer:
        """Who is in, of the current round; one call, answered at the latest after ``wait_s``."""
        path = self._path("rounds", "current", "received")
        return self.call("GET", path, params={"wait": str(wait_s)}, read_timeout_s=wait_s + READ_TIMEOUT_S)

    # What a client asks.

    def global_model(self, known: str = "") -> Answer:
        """The latest global model; one call. 304, without the model, where it is the one of the ETag ``known``."""
        return self.call("GET", self._path("global"), known=known)

    def phase(self) -> str:
        """Of the run: ``idle``, ``running``, ``finished``; "" where it is not known. One call."""
        answer = self.call("GET", self._path())
        if answer.status == 404:
            return ""
        view = self._expect(answer, "what it knows of the run").json()
        return str(view.get("phase", "")) if isinstance(view, dict) else ""

    def global_url(self) -> str:
        """Where the latest global model is."""
        return self.url + self._path("global")

    def upload(
        self,
        url: str,
        token: str,
        *,
        data: bytes,
        media_type: str,
        num_samples: int | None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> Answer:
        """``PUT`` to the ``upload_url`` of a START; one call."""
        params = None if num_samples is None else {"num_samples": str(num_samples)}
        return self.call(
            "PUT", url, data=data, media_type=media_type, params=params, token=token, read_timeout_s=read_timeout_s
        )

    def _ask(self, awaited: str, method: str, path: str, **rest: Any) -> Answer:
        answer = self.patiently(awaited, lambda: self.call(method, path, **rest))
        if answer is None:  # Only where somebody could have said to give up.
            raise FedfabError(f"gave up {awaited}")
        return answer

    def _expect(self, answer: Answer, what: str) -> Answer:
        if answer.status in (200, 201):
            return answer
        raise refusal(what, answer)

    def _path(self, *parts: str) -> str:
        return "/".join(["/v1/runs", self.run_segment, *(quote(part, safe="") for part in parts)])

    def _session(self) -> requests.Session:
        session = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
        return session


def refusal(what: str, answer: Answer) -> CoordinatorError:
    """The coordinator's refusal as an error that says what to do."""
    advice = {
        401: "; write the operator's token as fedfab_args.token or in FEDFAB_TOKEN",
        403: "; the token is not for this",
        413: "; raise http.body_limit_mb at the coordinator",
    }.get(answer.status, "")
    said = f"{answer.code}: {answer.detail}" if answer.code else answer.detail
    return CoordinatorError(f"the coordinator refused {what} ({said}){advice}", status=answer.status, code=answer.code)


def content_digest(data: bytes) -> str:
    """The header Content-Digest of RFC 9530."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode('ascii')}:"


def wait(seconds: float, give_up: threading.Event | None = None) -> None:
    """Pause; shorter when ``give_up`` is set."""
    if give_up is None:
        time.sleep(seconds)
    else:
        give_up.wait(seconds)


def _retry_after(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), 60.0) if text.isascii() and text.isdigit() else 0.0


def _reason(error: Exception) -> str:
    """Why there was no answer, without the URL and headers that requests puts into its words."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection within the time"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer within the time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted: write its authority's certificates as fedfab_args.coordinator_ca_file"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, requests.exceptions.RequestException):
            return cause.strerror or type(cause).__name__
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
