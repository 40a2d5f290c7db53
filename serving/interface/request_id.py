"""The id of a request, which its answer and the log name."""

import re
import secrets

_WELL_FORMED = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


def request_id_for(sent: str) -> str:
    """Return the client's X-Request-Id if it is well formed, and a random one otherwise."""
    return sent if _WELL_FORMED.fullmatch(sent) else secrets.token_hex(16)
