"""News between nodes, by NOTIFY on a connection of its own (`gateway.nodes.news`).

Names are gathered for a moment and sent in one statement, outside of every step: a NOTIFY inside a transaction that
waits for the disk holds up all others that have one. The connection listens too. It does not go through a pool of
connections in transaction mode, which forgets who listens.

A dead connection can look alive, so a statement is sent every few seconds and has to be answered soon. After every
doubt the order is: connect, listen, then tell the listeners that anything may have changed. While there is no
connection they are told so every second; what was to be sent waits, bounded by name and topic.
"""

import asyncio
import logging
import os
import socket
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psycopg

from gateway.domain.ports.observers import NewsObserver
from gateway.nodes.news import Listener, News, Topic
from gateway.nodes.rules.packing import Names, Waiting, merge, pack, unpack
from gateway.store.postgres.connection import Address

logger = logging.getLogger(__name__)

CHANNEL: Final = "replicate_gateway"
MESSAGE_BYTES: Final = 7900
"""PostgreSQL refuses messages of 8000 bytes."""
_GATHER_SECONDS: Final = 0.01
_HEARTBEAT_SECONDS: Final = 2.0
_DEADLINE_SECONDS: Final = 1.0
_AWAY_SECONDS: Final = 1.0
"""How often listeners are told that anything may have changed while there is no connection."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_MOST_WAITING: Final = 10_000
"""Names of one topic. More stand for all names."""

_LISTEN: Final = f"LISTEN {CHANNEL}".encode()
_NOTIFY: Final = b"SELECT pg_notify($1, message) FROM unnest(CAST($2 AS TEXT[])) AS message"
_HEARTBEAT: Final = b"SELECT 1"

Connection = psycopg.AsyncConnection[tuple[object, ...]]


class PostgresNews:
    """Tells other nodes, and calls listeners with what other nodes tell."""

    is_shared = True

    def __init__(
        self,
        address: Address,
        observer: NewsObserver,
        *,
        most_waiting: int = _MOST_WAITING,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
        deadline_seconds: float = _DEADLINE_SECONDS,
        away_seconds: float = _AWAY_SECONDS,
    ) -> None:
        self._address = address
        self._observer = observer
        self._heartbeat_seconds = heartbeat_seconds
        self._deadline_seconds = deadline_seconds
        self._away_seconds = away_seconds
        self._waiting = Waiting(most_waiting)
        self._listeners: dict[Topic, list[Listener]] = defaultdict(list)
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        """Whether names have waited long enough for others to be sent with them."""
        self._told_at: float | None = None
        """When the oldest name was told that waits to be sent."""
        self._sent_at: float | None = None
        """When the oldest name was told of the message whose return is measured."""
        self._received: dict[Topic, list[str] | None] = {}
        self._is_closing = False
        self.is_listening = False
        self._task: asyncio.Task[None] | None = None
        self._alarms: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of names that wait to be sent."""
        return len(self._waiting)

    def tell(self, topic: Topic, name: str) -> None:
        """Tell the other nodes. Never blocks or raises."""
        if not self._waiting.add(topic, name):
            self._observer.news_overflowed(topic)
        if self._timer is None:
            self._told_at = asyncio.get_running_loop().time()
            self._gather()

    def add_listener(self, topic: Topic, listener: Listener) -> None:
        """Call `listener` with the names that other nodes tell of."""
        self._listeners[topic].append(listener)

    def start(self) -> None:
        """Send and listen until `close`."""
        self._task = asyncio.create_task(self._run(), name="news")
        self._alarms = asyncio.create_task(self._alarm(), name="news alarms")

    async def _run(self) -> None:
        pause, has_listened = _FIRST_PAUSE, False
        while not self._is_closing:
            try:
                async with asyncio.timeout(self._address.timeout_seconds + self._deadline_seconds):
                    connection = await self._address.connect_async()
                try:
                    await self._execute(connection, _LISTEN)
                    if has_listened:
                        logger.info("notifications of other nodes arrive again")
                        self._observer.news_reconnected()
                    self.is_listening, has_listened, pause = True, True, _FIRST_PAUSE
                    # Changes from before this moment are read from the store.
                    self._tell_of_anything()
                    await self._serve(connection)
                finally:
                    self.is_listening = False
                    # Not `close`, which is polite to a server that may not answer.
                    connection.pgconn.finish()
            except (psycopg.Error, OSError, TimeoutError) as exc:
                if has_listened and pause == _FIRST_PAUSE:
                    logger.warning("notifications of other nodes do not arrive", extra={"reason": str(exc).strip()})
            except Exception:
                logger.exception("the connection for news failed")
            if not self._is_closing:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def close(self) -> None:
        """Send what waits, if there is a connection, and end."""
        self._is_closing = True
        self._wake.set()
        if self._task is not None and self._alarms is not None:
            self._alarms.cancel()
            # Twice the deadline: what is being sent, then the rest.
            await asyncio.wait({self._task}, timeout=2 * self._deadline_seconds if self.is_listening else 0.0)
            self._task.cancel()
            await asyncio.gather(self._task, self._alarms, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    def _gather(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._set_due)

    def _set_due(self) -> None:
        self._is_due = True
        self._wake.set()

    async def _alarm(self) -> None:
        """Tell listeners again and again that anything may have changed, while there is no connection."""
        while True:
            await asyncio.sleep(self._away_seconds)
            if not self.is_listening:
                self._tell_of_anything()

    async def _serve(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        own = connection.info.backend_pid
        connection.add_notify_handler(lambda notify: self._receive(notify.pid, notify.payload, own))
        answered_at = loop.time()
        while True:
            await self._wait_for_work(connection, answered_at + self._heartbeat_seconds)
            self._read(connection, own)
            if self._is_closing:
                await self._send(connection)
                return
            if self._is_due:
                await self._send(connection)
                answered_at = loop.time()
            elif answered_at + self._heartbeat_seconds <= loop.time():
                await self._execute(connection, _HEARTBEAT)
                answered_at = loop.time()
            self._pass_on()

    async def _wait_for_work(self, connection: Connection, until: float) -> None:
        """Wait until the server has sent something, names are due to be sent, or the time has come."""
        loop, descriptor = asyncio.get_running_loop(), connection.fileno()
        # Anew each time: psycopg takes the place of the reader while it waits for an answer.
        loop.add_reader(descriptor, self._wake.set)
        timer = loop.call_at(until, self._wake.set)
        try:
            # If the last connection ended as names became due, its end has used up the wake-up for both.
            if not self._is_due:
                await self._wake.wait()
        finally:
            timer.cancel()
            loop.remove_reader(descriptor)
        self._wake.clear()

    def _read(self, connection: Connection, own: int) -> None:
        """Take what the server has sent. Never waits."""
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            self._receive(notify.be_pid, notify.extra.decode("utf-8", "replace"), own)

    async def _send(self, connection: Connection) -> None:
        if self._timer is not None:
            self._timer.cancel()
        told_at = self._told_at
        self._timer, self._is_due, self._told_at = None, False, None
        news = self._waiting.take()
        if not news:
            return
        self._sent_at = told_at
        try:
            await self._execute(connection, _NOTIFY, [CHANNEL, pack(news, MESSAGE_BYTES)])
        except BaseException:
            # It is not known whether they were sent. Twice does no harm.
            self._keep(news, told_at)
            raise

    def _keep(self, news: Mapping[Topic, Names], told_at: float | None) -> None:
        self._waiting.put_back(news)
        self._told_at, self._sent_at = told_at, None
        if self._timer is None:
            self._gather()

    async def _execute(self, connection: Connection, statement: bytes, parameters: list[object] | None = None) -> None:
        """Execute a statement. Raise `psycopg.Error`, at the deadline too."""
        timer = asyncio.get_running_loop().call_later(self._deadline_seconds, _cut, connection)
        try:
            await connection.execute(statement, parameters, prepare=False)
        finally:
            timer.cancel()

    def _receive(self, sender: int, message: str, own: int) -> None:
        if sender == own:
            # Only the way through the server and back can be measured: the nodes' clocks differ.
            if self._sent_at is not None:
                self._observer.news_took(asyncio.get_running_loop().time() - self._sent_at)
                self._sent_at = None
            return
        try:
            merge(self._received, unpack(message))
        except ValueError as exc:
            logger.warning("a message of another node cannot be read", extra={"reason": str(exc)})
            self._received = dict.fromkeys(Topic)

    def _pass_on(self) -> None:
        """Call the listeners with everything that has arrived, once."""
        received, self._received = self._received, {}
        for topic, names in received.items():
            self._call(topic, names)

    def _tell_of_anything(self) -> None:
        self._received = {}
        for topic in self._listeners:
            self._call(topic, None)

    def _call(self, topic: Topic, names: Names) -> None:
        for listener in self._listeners.get(topic, ()):
            try:
                listener(names)
            except Exception:
                logger.exception("a listener to news failed", extra={"topic": topic})


def _cut(connection: Connection) -> None:
    """End a connection whose server does not answer: what waits for it fails at once.

    psycopg would ask the server to cancel the statement, and wait for that for seconds.
    """
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)


if TYPE_CHECKING:
    _: type[News] = PostgresNews
