"""Asking by HTTP and HTTPS: the status, and a text that the answer must hold.

A fresh connection for each probe, because an old one proves little. It is made by `sockets.connect`, which knows marks
and sources, and handed to aiohttp; one session and two TLS contexts serve all probes, for they are costly to make.
"""

import errno
import ssl
from contextvars import ContextVar
from functools import cached_property, lru_cache
from typing import Any

import aiohttp
from yarl import URL

from lbnode.health.sockets import Attempt, Connection, Ports, connect
from lbnode.health.state import Outcome, Probe

BODY_MAX = 64 * 1024
SHOWN = 40
HEADERS = {"User-Agent": "lbnode", "Accept-Encoding": "identity"}

_handed: ContextVar[list[Connection]] = ContextVar("handed")
"""The one connection that this probe has, until aiohttp takes it."""


def _take(_: object) -> Connection:
    """For aiohttp, which would ask again on a second connection when it gets nothing on the first."""
    if not _handed.get():
        raise ConnectionResetError(errno.ECONNRESET, "no answer on the connection")
    return _handed.get().pop()


class Web:
    """Asks http and https probes. To be made in a running event loop, and closed."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        connector = aiohttp.TCPConnector(
            force_close=True,
            limit=0,
            use_dns_cache=False,
            happy_eyeballs_delay=None,
            socket_factory=_take,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # the caller has a deadline of its own
            auto_decompress=False,
            headers=HEADERS,
        )

    async def ask(self, attempt: Attempt) -> Outcome:
        """Raises Unable and OSError when there is no connection."""
        probe = attempt.probe
        handed = [await connect(attempt, self._ports)]
        _handed.set(handed)
        headers = {"Host": probe.host} if probe.host else {}
        options: dict[str, Any] = {}
        if probe.kind == "https":
            options = {"ssl": self._checked if probe.verify else self._unchecked}
            options |= {"server_hostname": probe.host} if probe.host else {}
        try:
            request = self._session.get(_url(probe), allow_redirects=False, headers=headers, **options)
            async with request as response:
                return await _judge(probe, response)
        except aiohttp.ClientConnectorCertificateError as error:
            return Outcome(False, f"certificate is not valid: {_why(error.certificate_error)}")
        except aiohttp.ClientConnectorSSLError as error:
            return Outcome(False, f"no TLS: {error.os_error}")
        except aiohttp.ClientConnectorError:
            return Outcome(False, "closed without an answer")
        except aiohttp.ClientOSError:
            raise
        except aiohttp.ClientPayloadError:
            return Outcome(False, "the answer breaks off")
        except aiohttp.ClientError as error:
            return Outcome(False, f"the answer makes no sense: {_why(error)}")
        finally:
            for left in handed:
                left.close()

    async def close(self) -> None:
        await self._session.close()

    @cached_property
    def _checked(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    @cached_property
    def _unchecked(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


@lru_cache(maxsize=4096)
def _url(probe: Probe) -> URL:
    host = f"[{probe.address}]" if ":" in probe.address else probe.address
    return URL(f"{probe.kind}://{host}:{probe.port}{probe.path or '/'}", encoded=True)


async def _judge(probe: Probe, response: aiohttp.ClientResponse) -> Outcome:
    said = f"HTTP {response.status}"
    if not any(matches(response.status, wanted) for wanted in probe.status):
        return Outcome(False, said)
    if not probe.body:
        return Outcome(True, said)
    text = probe.body.encode()
    if text in await _beginning(response, text):
        return Outcome(True, f"{said} with its text")
    shown = probe.body if len(probe.body) <= SHOWN else probe.body[:SHOWN] + "..."
    return Outcome(False, f"{said} without {shown!r}")


async def _beginning(response: aiohttp.ClientResponse, text: bytes) -> bytes:
    """Of the body: until `text` is in it, or BODY_MAX bytes."""
    found = bytearray()
    while len(found) < BODY_MAX and text not in found:
        chunk = await response.content.read(BODY_MAX - len(found))
        if not chunk:
            break
        found += chunk
    return bytes(found)


def matches(status: int, wanted: str) -> bool:
    """`wanted`: a number, or a class such as 2xx."""
    return str(status) == wanted or (wanted.endswith("xx") and str(status // 100) == wanted[0])


def _why(error: Exception) -> str:
    """The first words of an error, without what it quotes."""
    text = getattr(error, "verify_message", "") or getattr(error, "message", "") or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0].partition(": b'")[0].rstrip(":")
