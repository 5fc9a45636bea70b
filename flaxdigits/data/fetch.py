"""Downloads a file from the first of several URLs, with timeouts and no partial files."""

import contextlib
import dataclasses
import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import certifi

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.progress import NO_PROGRESS, Progress

_CHUNK_SIZE = 1 << 18


class FetchError(FlaxdigitsError):
    """No URL provided the file: no network, or the response was an error or damaged."""


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Timeouts in seconds.

    Attributes:
      connect: the maximum time to connect to all URLs, in parallel.
      read: the maximum time without receiving a byte.
      total: the maximum time to download a file from one URL.
    """

    connect: float = 8.0
    read: float = 30.0
    total: float = 900.0


TIMEOUTS = Timeouts()


def fetch(
    urls: Sequence[str],
    destination: Path,
    check: Callable[[Path], object],
    timeouts: Timeouts = TIMEOUTS,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Downloads a file from the first URL that provides a file which `check` accepts.

    The file is downloaded to `<destination>.part`, and renamed when it is complete and has been
    checked. The `.part` file is removed in any case.

    Args:
      urls: http or https URLs, which are tried in this order.
      destination: the path of the file.
      check: called with the path of the downloaded file; raises FlaxdigitsError if it is the wrong
        file.
      timeouts: the timeouts.
      progress: is notified of the number of bytes.

    Raises:
      FetchError: if no URL provided the file; the message names each URL and the reason.
      FlaxdigitsError: if the destination cannot be written.
    """
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with progress.stage(f"connecting to download {destination.name}"):
            problems = _unreachable(urls, timeouts.connect)
        for url in urls:
            if url in problems:
                continue
            try:
                _download(url, part, timeouts, progress)
                check(part)
            except (FlaxdigitsError, _DownloadError) as error:
                problems[url] = str(error)
            else:
                part.replace(destination)
                return
    except OSError as error:
        raise FlaxdigitsError(
            f"{destination}: cannot be written ({error.strerror}); free space there or choose "
            "another data_dir") from error
    finally:
        with contextlib.suppress(OSError):  # if nothing can be written, there is no `.part` file
            part.unlink(missing_ok=True)
    reasons = "; ".join(f"{url}: {problems[url]}" for url in urls)
    raise FetchError(f"{destination.name} could not be downloaded ({reasons})")


class _DownloadError(Exception):
    """The download from one URL failed."""


def _download(url: str, part: Path, timeouts: Timeouts, progress: Progress) -> None:
    deadline = time.monotonic() + timeouts.total
    request = urllib.request.Request(url, headers={"User-Agent": "flaxdigits"})
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())  # some Python installations lack certificates
    try:
        response = urllib.request.urlopen(request, timeout=timeouts.read, context=context)
    except urllib.error.HTTPError as error:
        error.close()
        raise _DownloadError(f"refused with HTTP {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: bad redirects
        raise _DownloadError(_reason(error)) from error
    part.unlink(missing_ok=True)  # it may remain from a killed download, or be a FIFO
    name = part.name.removesuffix(".part")
    with (response, part.open("xb") as file,
          progress.stage(f"downloading {name}: bytes", _content_length(response)) as advance):
        while chunk := _next_chunk(response):
            file.write(chunk)
            advance(file.tell())
            if time.monotonic() > deadline:
                raise _DownloadError(f"not finished after {timeouts.total:g} s")
        expected, got = _content_length(response), file.tell()
    if expected is not None and expected != got:
        raise _DownloadError(f"incomplete: {got} of {expected} bytes received")


def _content_length(response: http.client.HTTPResponse) -> int | None:
    """Returns the Content-Length, or None if it is missing or malformed."""
    text = response.headers.get("Content-Length", "").strip()
    # int() raises for very long strings of digits.
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _next_chunk(response: http.client.HTTPResponse) -> bytes:
    # Reading is separate from writing, so that a broken connection is not reported as a full disk.
    try:
        return response.read1(_CHUNK_SIZE)
    except (OSError, http.client.HTTPException) as error:
        raise _DownloadError(_reason(error)) from error


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__


def _unreachable(urls: Sequence[str], seconds: float) -> dict[str, str]:
    """Returns, by URL, why its host cannot be reached, for URLs whose host accepts no connection.

    The connections are tried in parallel for `seconds`, in daemon threads, since a DNS lookup has
    no timeout.
    """
    problems = dict.fromkeys(urls, f"no connection within {seconds:g} s")

    def connect(url: str) -> None:
        try:
            # Half of the time, so that there is time for a second IP address of the host.
            socket.create_connection(_host_and_port(url), timeout=seconds / 2).close()
            del problems[url]
        except OSError as error:
            problems[url] = _reason(error)

    threads = [threading.Thread(target=connect, args=(url,), daemon=True) for url in problems]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return problems.copy()


def _host_and_port(url: str) -> tuple[str | None, int]:
    """Returns the host and port to connect to: those of the URL, or of its HTTP proxy."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
