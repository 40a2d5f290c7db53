"""Compares the keys that requests carry with those that the server accepts."""

import hashlib
import hmac
from collections.abc import Collection, Mapping

NEEDS_KEY = "this needs a key: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"

_WHITE_SPACE = b" \t"


class Keys:
    """The accepted keys by path.

    Args:
        keys: in ASCII, by path prefix; the longest prefix decides, and a prefix without keys is open.
    """

    def __init__(self, keys: Mapping[str, Collection[str]]) -> None:
        longest_first = sorted(keys, key=len, reverse=True)
        self._keys = [(prefix, [_digest(key.encode()) for key in keys[prefix]]) for prefix in longest_first]

    @property
    def any_needed(self) -> bool:
        """Whether any path needs a key."""
        return any(keys for _, keys in self._keys)

    def are_needed(self, path: str) -> bool:
        """Return whether a path needs a key."""
        return bool(self._accepted(path))

    def admit(self, path: str, authorization: bytes, x_api_key: bytes) -> bool:
        """Return whether a request may pass.

        Args:
            authorization: the header Authorization, `Bearer KEY`; white space around a key does not count.
            x_api_key: the header X-API-Key, which counts where the first names no key.
        """
        keys = self._accepted(path)
        if not keys:
            return True
        scheme, _, token = authorization.strip(_WHITE_SPACE).partition(b" ")
        sent = token if scheme.lower() == b"bearer" else x_api_key
        digest = _digest(sent.strip(_WHITE_SPACE))
        # Compares all keys, each in constant time: the time tells nothing about them, and neither does their length.
        return any([hmac.compare_digest(digest, key) for key in keys])  # noqa: C419

    def _accepted(self, path: str) -> list[bytes]:
        return next((keys for prefix, keys in self._keys if path.startswith(prefix)), [])


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
