"""A deployed server as its clients reach it: the way there, TLS, who may come in, what should not be seen outside."""

import asyncio
import ssl
import time
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from chatd.doctor.client import TIMEOUT, Client, HttpResponse
from chatd.doctor.findings import Finding, Findings, Unexpected, warning
from chatd.headers import SERVER
from chatd.parsing import is_local

CONNECT_TIMEOUT = 10.0
FEW_DAYS = 14
REQUEST_ID = "chatd-doctor.request-id"
INNER = ("/metrics", "/readyz")
IN_THE_CLEAR = "serve https:// alone and ask for that, or run this on its host with http://127.0.0.1"
NOT_THERE = "see whether the proxy runs and passes requests on to chatd"


async def check_reachable(client: Client) -> Findings:
    """See that chatd answers there, and which."""
    try:
        response = await client.call("GET", "/healthz", anonymous=True, headers={"X-Request-ID": REQUEST_ID})
    except aiohttp.ClientConnectorCertificateError as error:
        reason = getattr(error.certificate_error, "verify_message", "") or "it can't be verified"
        advice = "renew it, have the proxy send its whole chain, or name your own authority in SSL_CERT_FILE"
        raise Unexpected(f"the certificate is refused: {reason}", advice) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unexpected(f"{client.url} can't be reached: {reason_of(error)}", NOT_THERE) from error
    if response.status in {301, 302, 307, 308}:
        raise Unexpected(f"{client.url} redirects to {response.headers.get('Location')}", "ask that server instead")
    if response.status != 200 or response.body != {"status": "ok"}:
        raise Unexpected(f"{client.url}/healthz is answered with {response.status}, not as chatd does", NOT_THERE)
    document = await client.ask("GET", "/openapi.json", anonymous=True)
    yield Finding("reachable", f"chatd {document['info']['version']} answers at {client.url}")
    yield look_at_request_id(response.headers.get("X-Request-ID"))


def reason_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    cause = getattr(error, "os_error", error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def look_at_request_id(given: str | None) -> Finding:
    if given == REQUEST_ID:
        return Finding("request id", "X-Request-ID is passed on, and comes back")
    advice = "have the proxy pass X-Request-ID on both ways, or log lines can't be found by it"
    return warning("request id", "X-Request-ID does not come back as it was sent", advice)


async def check_tls(client: Client) -> Findings:
    """Tell for how long the certificate, which is verified by now, is good, and which HTTP browsers get.

    Raises Unexpected where a token would be read on its way.
    """
    parts = urlsplit(client.url)
    assert parts.hostname
    if parts.scheme == "http":
        if not is_local(client.url):
            raise Unexpected("none: tokens and messages can be read in transit", IN_THE_CLEAR)
        yield Finding("TLS", "none, on this host")
        return
    if goes_by_forward_proxy(client.url):
        yield Finding("TLS", "the certificate is trusted; when it expires can't be seen through HTTPS_PROXY")
        return
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.wait_for(
        asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context), CONNECT_TIMEOUT
    )
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate, protocol = tls.getpeercert(), tls.selected_alpn_protocol()
    finally:
        writer.transport.abort()
    assert certificate is not None
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86_400
    yield look_at_certificate(days, str(tls.version()))
    if protocol == "h2":
        yield Finding("HTTP", "browsers get HTTP/2")
    else:
        detail = "browsers get HTTP/1.1: each stream takes one of their six connections to a host"
        yield warning("HTTP", detail, "nginx: listen 443 ssl http2; (or, from 1.25.1 on, http2 on;)")


def goes_by_forward_proxy(url: str) -> bool:
    """Tell whether aiohttp asks for this URL by a proxy that the environment names."""
    parts = urlsplit(url)
    return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")


def look_at_certificate(days: float, version: str) -> Finding:
    detail = f"{version}, the certificate is good for {days:.0f} days"
    return warning("TLS", detail, "renew it") if days < FEW_DAYS else Finding("TLS", detail)


async def check_outside(client: Client) -> Findings:
    """See that what is for the host alone is not passed on: where a proxy answers, or whoever does on another host."""
    responses = {path: await client.call("GET", path, anonymous=True) for path in INNER}
    if is_local(client.url) and not any(map(came_by_proxy, responses.values())):
        yield Finding("inner paths", "no proxy is seen, and this host may read them")
    elif seen := [path for path, response in responses.items() if response.status == 200 or is_unready(response)]:
        paths = " and ".join(seen)
        advice = f"nginx: location = {seen[0]} {{ return 404; }}, and so on; they are for the host alone"
        yield warning("inner paths", f"{paths} can be read from outside", advice)
    else:
        yield Finding("inner paths", f"{' and '.join(INNER)} are not passed on")


def came_by_proxy(response: HttpResponse) -> bool:
    """Tell whether a response bears a proxy's name; one that leaves chatd's own and adds no Via can't be told."""
    return response.headers.get("Server") != SERVER["Server"] or "Via" in response.headers


def is_unready(response: HttpResponse) -> bool:
    return isinstance(response.body, dict) and "checks" in response.body


async def check_auth(client: Client) -> Findings:
    """See that the token is accepted, and that none means no."""
    response = await client.call("GET", "/agent/me")
    if response.status == 401:
        given = "the token is not accepted" if client.token else "a token is needed"
        raise Unexpected(given, "set CHATD_TOKEN to one of an owner's, or CHATD_JWT_SECRET to the server's")
    if response.status == 403:
        advice = "set CHATD_AUTH=jwt on the server; CHATD_ALLOW_ANONYMOUS=1 lets everyone in"
        raise Unexpected("chatd runs without tokens, and does not answer through a proxy", advice)
    if response.status != 200:
        raise Unexpected(f"GET /agent/me is answered with {response.status}", NOT_THERE)
    if (await client.call("GET", "/agent/me", anonymous=True)).status == 401:
        yield Finding("auth", f"the token speaks for {response.body['owner']}; without one nobody is let in")
    elif is_local(client.url):
        yield Finding("auth", "none, on this host")
    else:
        yield warning("auth", "none: everyone who gets here may read everything", "set CHATD_AUTH=jwt on the server")
