"""The log: one JSON object per line, or plain lines where a person watches; with the id of the request."""

import json
import logging
import sys
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class PlainFormatter(logging.Formatter):
    """A record as a line: its level, its message and its fields, as `JsonFormatter` has them."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_on_one_line(value)}" for name, value in _fields(record).items())
        line = f"{record.levelname}: {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _on_one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)  # a path says what a client likes


class JsonFormatter(logging.Formatter):
    """A record as a JSON object; what it was given as `extra={"fields": {...}}` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    current = request_id.get()
    return {**({} if current is None else {"request_id": current}), **getattr(record, "fields", {})}


def configure_logging() -> None:
    """Log the server and uvicorn to standard error, and of all else what is a warning or worse."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)
    # Pillow's say what a client wrote into an image, and Python keeps every text that it has warned with.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in ("serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
