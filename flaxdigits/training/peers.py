"""Lets the processes of a run watch each other, so that none waits for a process that is lost.

Each process has a TCP connection to process 0, over which a thread sends a message every second.
If a connection closes without notice, or no message arrives for `SILENCE_SECONDS`, the process at
its other end counts as lost. Process 0 notifies the others, and every remaining process prints one
line and exits with status 1 from that thread: its main thread may be waiting for the lost process
within a native library, where an exception cannot interrupt it. A message is a line with a JSON
object.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from flaxdigits.errors import FlaxdigitsError

HEARTBEAT_SECONDS = 1.0  # seconds between two messages
SILENCE_SECONDS = 20.0  # seconds after which a silent process counts as lost
GRACE_SECONDS = 8.0  # seconds that a process has to end regularly after another one has failed
LOST_EXIT_STATUS = 1  # the exit status of a process that ends because another one has ended
LONGEST_LINE = 1 << 16

# A message may also have the state "lost". A process that is lost, or whose connection has closed,
# is "gone".
State = Literal["running", "failed", "ending", "closed", "gone"]


@dataclasses.dataclass(frozen=True)
class ProcessInfo:
    """A process of a run.

    Attributes:
      process: the number of the process, from 0.
      processes: the number of processes of the run.
      host: the name of the machine.
      pid: the process id on that machine.
    """

    process: int
    processes: int
    host: str
    pid: int

    @classmethod
    def here(cls, process: int, processes: int) -> "ProcessInfo":
        """Returns the description of this process."""
        return cls(process, processes, socket.gethostname(), os.getpid())

    @classmethod
    def read(cls, message: dict[str, Any]) -> "ProcessInfo | None":
        """Returns the process that a message describes, or None if it does not describe one."""
        values: list[Any] = [message.get(field.name) for field in dataclasses.fields(cls)]
        is_valid = all(type(value) is kind for value, kind in
                       zip(values, (int, int, str, int), strict=True))
        return cls(*values) if is_valid else None

    def __str__(self) -> str:
        return f"process {self.process} of {self.processes} (pid {self.pid} on {self.host})"


class Connection:
    """Sends and receives messages over a socket.

    Attributes:
      socket: the socket.
      unread: messages that were received together with the first one.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(HEARTBEAT_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self.unread: list[dict[str, Any]] = []
        self._received, self._lock = b"", threading.Lock()

    def send(self, **message: Any) -> None:
        """Sends a message; a broken connection is ignored here and reported by `receive`."""
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Returns the messages that have arrived within a second; None if the connection is closed.
        """
        try:
            received = self.socket.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError:
            return None
        *lines, self._received = (self._received + received).split(b"\n")
        if not received or len(self._received) > LONGEST_LINE:
            return None
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            return None
        return messages if all(isinstance(message, dict) for message in messages) else None

    def first(self, deadline: float) -> dict[str, Any] | None:
        """Returns the first message, or None at the deadline or if the connection is closed."""
        while time.monotonic() < deadline:
            messages = self.receive()
            if messages is None:
                return None
            if messages:
                message, *self.unread = messages
                return message
        return None

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()


class Peers:
    """The other processes of a run.

    Args:
      here: this process.
      members: all processes of the run, by number.
      connections: the connections of this process by the number of the process at the other end:
        in process 0 one to each other process, elsewhere only the one to process 0.

    Attributes:
      exit_status: the exit status of this process after it has failed.
      stderr: a file descriptor for the line that reports why this process exits.
    """

    def __init__(
        self, here: ProcessInfo, members: Sequence[ProcessInfo], connections: dict[int, Connection],
    ) -> None:
        self.exit_status, self.stderr = LOST_EXIT_STATUS, 2
        self._here, self._members, self._connections = here, members, connections
        self._last_message = dict.fromkeys(connections, time.monotonic())
        self._states: dict[int, State] = {
            member.process: "running" for member in members if member != here}
        self._changed = threading.Condition()
        self._has_failed = False
        self._failure: tuple[float, str] | None = None  # the time and line of another's failure

    def watch(self, stderr: int) -> None:
        """Starts the thread that watches the other processes until this process ends.

        Args:
          stderr: the file descriptor for the line that reports why this process exits.
        """
        self.stderr = stderr
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def fail(self, text: str, exit_status: int) -> None:
        """Notifies the other processes that this process ends with an error.

        The method first waits for two seconds. If the watching thread notices in this time that
        another process is lost, the error is assumed to be a consequence of that loss, and the
        thread ends this process. Further calls return at once.

        Args:
          text: the error in one line, which the other processes print.
          exit_status: the exit status of this process.
        """
        if self._has_failed:
            return
        self.exit_status = exit_status
        time.sleep(2 * HEARTBEAT_SECONDS)  # a closed connection is noticed within this time
        with self._changed:
            self._has_failed = True
        self._announce("failed", text=text)

    def end(self) -> bool:
        """Waits until all processes have finished their work.

        Returns:
          Whether all other processes are still connected; if not, some of them have failed.
        """
        if not self._has_failed:
            self._announce("ending")
        with self._changed:
            while "running" in self._states.values() or (
                    self._failure and not self._has_failed):  # the watching thread then exits
                self._changed.wait()
            return "gone" not in self._states.values()

    def close(self) -> None:
        """Notifies the others that this process exits; none of them waits for it any more."""
        self._announce("closed")

    def _announce(self, state: State, **more: Any) -> None:
        """Sends a state of this process to the processes that are connected to it."""
        for connection in self._connections.values():
            connection.send(process=self._here.process, state=state, **more)

    def _watch(self) -> None:
        """Sends and receives messages until all connections are closed; the body of the thread."""
        last, sent = time.monotonic(), 0.0
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                selector.register(connection.socket, selectors.EVENT_READ, process)
                for message in connection.unread:
                    self._handle(process, message)
            while selector.get_map():
                ready = selector.select(HEARTBEAT_SECONDS / 2)
                now = time.monotonic()
                if now - last > 3 * HEARTBEAT_SECONDS:  # this process was stopped, not the others
                    self._last_message = {process: received + now - last for process, received
                                          in self._last_message.items()}
                last = now
                if now - sent >= HEARTBEAT_SECONDS:
                    self._announce("running")
                    sent = now
                for key, _ in ready:
                    if not self._receive(key.data, now):
                        selector.unregister(key.fileobj)
                for process, received in self._last_message.items():
                    is_silent = now - received > SILENCE_SECONDS
                    if is_silent and self._states[process] not in ("closed", "gone"):
                        self._mark_lost(process, f"has been silent for {SILENCE_SECONDS:.0f} s "
                                                 "(stopped, or its machine cannot be reached)")
                has_waited = self._failure and now - self._failure[0] > GRACE_SECONDS
                if has_waited and not self._has_failed:
                    self._exit_with(self._failure[1])

    def _receive(self, process: int, now: float) -> bool:
        """Handles the messages that have arrived; returns whether the connection is still open."""
        messages = self._connections[process].receive()
        if messages is None:
            if self._states[process] in ("running", "ending"):
                self._mark_lost(process, "ended without notice (killed?)")
            self._set_state(process, "gone")
            if process == 0:  # which forwarded the messages of the others
                for other in self._states:
                    self._set_state(other, "gone")
            return False
        self._last_message[process] = now
        for message in messages:
            self._handle(process, message)
        return True

    def _handle(self, sender: int, message: dict[str, Any]) -> None:
        """Handles a message, which process 0 also forwards to the other processes."""
        process: Any = message.get("process")
        state: Any = message.get("state")
        text: Any = message.get("text")
        if process not in range(self._here.processes) or state == "running":
            return
        if self._here.process == 0:
            for other, connection in self._connections.items():
                if other != sender:
                    connection.send(**message)
        if state == "lost":
            if not self._has_failed:
                self._exit_with(text if process != self._here.process else
                            f"the other processes count this process, {self._here}, as lost "
                            f"(silent for {SILENCE_SECONDS:.0f} s)")
            self._set_state(process, "gone")
            return
        if state == "failed" and self._failure is None:
            self._failure = (time.monotonic(),
                             f"{self._members[process]} ended with an error: {text}")
        self._set_state(process, state)

    def _mark_lost(self, process: int, how: str) -> None:
        """Ends this process because another one is lost; process 0 first notifies the others.

        A process that has failed itself is not ended.
        """
        line = self._failure[1] if self._failure else f"{self._members[process]} {how}"
        if self._here.process == 0:
            for connection in self._connections.values():
                connection.send(process=process, state="lost", text=line)
        if not self._has_failed:
            self._exit_with(line)
        self._set_state(process, "gone")

    def _set_state(self, process: int, state: State) -> None:
        """Sets the state of another process; ignored for this process, and for one that is gone."""
        with self._changed:
            if self._states.get(process) not in (None, "gone"):
                self._states[process] = state
            self._changed.notify_all()

    def _exit_with(self, reason: str) -> NoReturn:
        exit_now(f"{reason}; to resume from the last checkpoint, start all processes again with "
                 "the same command", LOST_EXIT_STATUS, self.stderr)


def exit_now(line: str, status: int, stderr: int = 2) -> NoReturn:
    """Prints an error line and ends this process without waiting for its other threads.

    Args:
      line: the message; empty prints nothing.
      status: the exit status.
      stderr: the file descriptor to which the line is written.
    """
    flushing = threading.Thread(target=_flush_stdout, daemon=True)  # flushing may block
    flushing.start()
    flushing.join(timeout=1)
    if line:
        with contextlib.suppress(OSError):
            os.write(stderr, f"error: {line}\n".encode(errors="backslashreplace"))
    os._exit(status)


def _flush_stdout() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()


def local_addresses() -> list[str]:
    """Returns host names and IP addresses of this machine, the most likely reachable one first."""
    addresses = []
    for family, remote in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((remote, 9))  # sends nothing, but selects the network interface
            addresses.append(probe.getsockname()[0])
    return [*addresses, socket.gethostname(), "localhost"]


def listen(port: int) -> socket.socket:
    """Returns a socket that listens on a port of all addresses of this machine; 0: a free port.

    Raises:
      FlaxdigitsError: if the port is used by another program.
    """
    is_dual = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if is_dual else socket.AF_INET,
            dualstack_ipv6=is_dual, backlog=1024)
    except (OSError, OverflowError) as error:
        raise FlaxdigitsError(
            f"cannot listen on port {port} for the other processes: {error}; set coordinator "
            "to a free port of this machine, the same for all processes") from error


def wait_for_others(
    server: socket.socket, here: ProcessInfo, token: str, seconds: float,
) -> Peers:
    """Waits, in process 0, until all other processes have connected to `server`, and closes it.

    Args:
      server: the socket from `listen`.
      here: process 0.
      token: a secret that the other processes must send.
      seconds: the timeout.

    Raises:
      FlaxdigitsError: if processes have not connected in time (the message names them), or two
        processes have the same number or disagree on the number of processes.
    """
    members, connections, refusal = {0: here}, {}, None
    deadline = time.monotonic() + seconds
    try:
        while len(members) < here.processes and not refusal and time.monotonic() < deadline:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection = Connection(server.accept()[0])
                message = connection.first(time.monotonic() + 2 * HEARTBEAT_SECONDS) or {}
                member = ProcessInfo.read(message)
                if member is None or message.get("token") != token:
                    connection.close()  # another program has connected to this port
                    continue
                refusal = _refusal(member, here, connections)
                if refusal:
                    connection.send(refused=refusal)
                else:
                    members[member.process], connections[member.process] = member, connection
    except BaseException:
        server.close()
        raise
    server.close()  # now its port can be used again
    missing = sorted(set(range(here.processes)) - set(members))
    if missing and not refusal:
        refusal = (f"{_numbered(missing)} of {here.processes} did not connect within "
                   f"{seconds:.0f} s: start all of them together, or wait longer with "
                   "connect_timeout")
    if refusal:
        for connection in connections.values():
            connection.send(refused=refusal)
        raise FlaxdigitsError(refusal)
    everyone = [members[process] for process in range(here.processes)]
    for connection in connections.values():
        connection.send(members=[dataclasses.asdict(member) for member in everyone])
    return Peers(here, everyone, connections)


def _refusal(member: ProcessInfo, here: ProcessInfo, known: dict[int, Connection]) -> str | None:
    """Returns why process 0 refuses the connection of another process; None if it accepts it."""
    if member.processes != here.processes:
        return (f"process {member.process} was started with num_processes={member.processes}, "
                f"process 0 with {here.processes}")
    if member.process in known or not 0 < member.process < here.processes:
        return f"several processes were started with process_id={member.process}"
    return None


def _numbered(processes: Sequence[int]) -> str:
    *most, last = map(str, processes)
    return f"processes {', '.join(most)} and {last}" if most else f"process {last}"


def join(
    addresses: Sequence[tuple[str, int]], here: ProcessInfo, token: str, seconds: float,
) -> Peers:
    """Connects this process to process 0, and waits until all processes are connected.

    Args:
      addresses: hosts and ports of process 0; the first one that answers is used.
      here: this process.
      token: the secret that was passed to `wait_for_others`.
      seconds: the timeout.

    Raises:
      FlaxdigitsError: if process 0 does not answer, or not all of the processes connect.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for address in addresses:
            try:
                connection = Connection(
                    socket.create_connection(address, timeout=2 * HEARTBEAT_SECONDS))
            except (OSError, ValueError):  # ValueError: an invalid host or port
                continue
            connection.send(token=token, **dataclasses.asdict(here))
            # Process 0 may have begun to wait later than this process. It is given the time to
            # report which processes are missing.
            answer = connection.first(deadline + 2 * HEARTBEAT_SECONDS) or {}
            if "refused" in answer:
                connection.close()
                raise FlaxdigitsError(str(answer["refused"]))
            if isinstance(answer.get("members"), list):
                members = [ProcessInfo(**member) for member in answer["members"]]
                return Peers(here, members, {0: connection})
            connection.close()
        time.sleep(HEARTBEAT_SECONDS / 5)
    host, port = addresses[0]
    raise FlaxdigitsError(
        f"process 0 of {here.processes} did not answer at {host}:{port} within {seconds:.0f} s: "
        "start it on that machine, together with the others, or wait longer with "
        "connect_timeout")
