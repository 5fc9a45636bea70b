"""Downloads a file from the first of several addresses, with timeouts and no partial files."""

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

_CHUNK = 1 << 18


class FetchError(FlaxdigitsError):
    """No address provided the file: no network, or the response was an error or damaged."""


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Seconds. `connect` limits the check whether any address answers, over all of them."""

    connect: float = 8.0
    read: float = 30.0  # without a single byte
    total: float = 900.0  # for one file from one address


TIMEOUTS = Timeouts()


def fetch(
    addresses: Sequence[str],
    destination: Path,
    check: Callable[[Path], None],
    timeouts: Timeouts = TIMEOUTS,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Downloads a file from the first address that provides one which `check` accepts.

    The file streams to `<destination>.part` and is renamed once it is whole and checked; the
    `.part` is removed whatever happens.

    Args:
      addresses: http or https, tried in this order.
      check: called with the downloaded path; raises FlaxdigitsError if it is the wrong file.
      timeouts: of connecting and reading.
      progress: is notified of the number of bytes.

    Raises:
      FetchError: no address provided the file; names each address and the reason.
      FlaxdigitsError: the destination cannot be written.
    """
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with progress.stage(f"connecting to download {destination.name}"):
            problems = _silent(addresses, timeouts.connect)
        for address in addresses:
            if address in problems:
                continue
            try:
                _download(address, part, timeouts, progress)
                check(part)
            except (FlaxdigitsError, _Broken) as error:
                problems[address] = str(error)
            else:
                part.replace(destination)
                return
    except OSError as error:
        raise FlaxdigitsError(
            f"{destination}: cannot be written ({error.strerror}); free space there or choose "
            "another folder with --data_dir") from error
    finally:
        with contextlib.suppress(OSError):  # where nothing can be written there is no `.part`
            part.unlink(missing_ok=True)
    reasons = "; ".join(f"{address}: {problems[address]}" for address in addresses)
    raise FetchError(f"{destination.name} could not be downloaded ({reasons})")


class _Broken(Exception):
    """One address failed."""


def _download(address: str, part: Path, timeouts: Timeouts, progress: Progress) -> None:
    deadline = time.monotonic() + timeouts.total
    request = urllib.request.Request(address, headers={"User-Agent": "flaxdigits"})
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())  # some Pythons come without certificates
    try:
        response = urllib.request.urlopen(request, timeout=timeouts.read, context=context)
    except urllib.error.HTTPError as error:
        error.close()
        raise _Broken(f"refused with HTTP {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # the last: odd redirects
        raise _Broken(_reason(error)) from error
    part.unlink(missing_ok=True)  # it may be what a killed download left, or a FIFO
    name = part.name.removesuffix(".part")
    with (response, part.open("xb") as file,
          progress.stage(f"downloading {name}: bytes", _length(response)) as advance):
        while chunk := _next_chunk(response):
            file.write(chunk)
            advance(file.tell())
            if time.monotonic() > deadline:
                raise _Broken(f"not finished after {timeouts.total:g} s")
        expected, got = _length(response), file.tell()
    if expected is not None and expected != got:
        raise _Broken(f"cut short: {got} of {expected} bytes received")


def _length(response: http.client.HTTPResponse) -> int | None:
    """Returns the announced number of bytes; None without one, or one that is malformed."""
    text = response.headers.get("Content-Length", "").strip()
    # One of more digits is longer than Python converts.
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _next_chunk(response: http.client.HTTPResponse) -> bytes:
    # Separate from writing, so that a broken connection is not reported as a full disk.
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_reason(error)) from error


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__


def _silent(addresses: Sequence[str], seconds: float) -> dict[str, str]:
    """Returns the addresses whose hosts accept no connection within `seconds`, with the reason.

    All are tried at once, in threads that are not joined: looking up a name has no timeout.
    """
    problems = dict.fromkeys(addresses, f"no connection within {seconds:g} s")

    def ask(address: str) -> None:
        try:
            # Half the time, so that a host's second address has its chance.
            socket.create_connection(_gateway(address), timeout=seconds / 2).close()
            del problems[address]
        except OSError as error:
            problems[address] = _reason(error)

    threads = [threading.Thread(target=ask, args=(address,), daemon=True)
               for address in problems]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return problems.copy()


def _gateway(address: str) -> tuple[str, int]:
    """Returns the host and port to connect to: those of the address, or of its proxy."""
    parts = urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
