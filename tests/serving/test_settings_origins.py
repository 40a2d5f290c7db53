"""Origins of pages in the settings: those that browsers send."""

import pytest
from pydantic import ValidationError

from serving.settings import Settings


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://example.org",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
        "https://example.org:80",
        "https://xn--bcher-kva.example",
        "chrome-extension://abcdefgh",
        "capacitor://localhost",
    ],
)
def test_origins_as_browsers_send_them_are_accepted(origin: str) -> None:
    assert Settings(cors_origins=(origin,)).cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "example.org",
        "https://example.org/",
        "https://example.org/app",
        "https://example.org?a=b",
        "https://Example.org",
        "HTTPS://example.org",
        "https://example.org:443",
        "http://example.org:80",
        "https://example.org:0",
        "https://example.org:65536",
        "https://example.org:",
        "https://*.example.org",
        "https://user@example.org",
        "https://b\u00fccher.example",
        "https://",
        "https:/example.org",
        "https://a b.org",
        "null",
    ],
)
def test_origin_that_can_never_match_is_an_error(origin: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=("https://example.org", origin))
