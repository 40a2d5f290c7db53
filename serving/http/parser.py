"""Parses HTTP requests, and ignores offers to change to another protocol."""

from typing import Any

import httptools

_FRAMING = (b"content-length", b"transfer-encoding")


class HttpParser:
    """httptools' parser, except that it ignores `Upgrade`, as a server may (RFC 9110, section 7.8).

    httptools stops after a head with `Upgrade`, because what follows belongs to the other protocol. This class then
    continues with a new parser. If the head announces a body, the new parser is first given a head that announces the
    same body. Java's HTTP client and `curl --http2` send such requests; their bodies would otherwise be read as the
    next requests.

    Args:
        protocol: gets httptools' callbacks, once for every request.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._framing: list[tuple[bytes, bytes]] = []  # the headers that give the length of the body
        self._repeats_head = False
        self.on_body = protocol.on_body
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does, which closes by itself

    def close(self) -> None:
        """Break the reference cycle with httptools' parser."""
        del self._parser

    def get_method(self) -> bytes:
        return self._parser.get_method()

    def get_http_version(self) -> str:
        return self._parser.get_http_version()

    def should_upgrade(self) -> bool:
        return self._parser.should_upgrade()

    def should_keep_alive(self) -> bool:
        return self._parser.should_keep_alive()

    def feed_data(self, data: bytes) -> None:
        """Parse received bytes.

        Raises:
            httptools.HttpParserError: they are not HTTP.
        """
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            self._renew()
            if self._framing:
                self._repeats_head = True
                head = b"".join(b"%b: %b\r\n" % header for header in self._framing)
                self._parser.feed_data(b"POST * HTTP/1.1\r\n" + head + b"\r\n")

    def on_message_begin(self) -> None:
        if not self._repeats_head:
            self._framing.clear()
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._repeats_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._repeats_head:
            if name.lower() in _FRAMING:
                self._framing.append((name, value))
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._repeats_head:
            self._protocol.on_headers_complete()
        self._repeats_head = False

    def on_message_complete(self) -> None:
        if not (self._framing and self.should_upgrade()):  # otherwise its body is still to come
            self._protocol.on_message_complete()
