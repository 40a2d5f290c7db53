"""The server's settings, from flags, environment variables, a file and defaults, in this order of precedence."""

from serving.settings.settings import FIRST_DECODING_BYTES, Settings

__all__ = ["FIRST_DECODING_BYTES", "Settings"]
