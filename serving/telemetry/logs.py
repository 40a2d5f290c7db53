"""The log: one JSON object per line, or plain text on a terminal, with the id of the request."""

import json
import logging
import os
import sys
import warnings
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pdeinfer.text import printable

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class PlainFormatter(logging.Formatter):
    """Format a record as a line of text: its level, message and fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_on_one_line(value)}" for name, value in _fields(record).items())
        line = f"{record.levelname}: {printable(record.getMessage().rstrip())} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _on_one_line(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)  # clients choose paths


class JsonFormatter(logging.Formatter):
    """Format a record as a JSON object, with the values of `extra={"fields": {...}}` beside the message."""

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
    """Log to standard error: everything from the server and uvicorn, warnings and errors from most of the rest.

    Call it before gRPC is imported.
    """
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115  # `2>&-`
    logging.basicConfig(handlers=[log_to_stderr("serving", "uvicorn")])
    logging.captureWarnings(True)
    # Pillow's warnings quote the client's images, and Python keeps the text of every warning.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # gRPC would log every malformed call, with what it holds: a client could fill the log, and a key could be in it.
    # Its C library reads the variable when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    # It warns of every malformed form, whose client is told.
    logging.getLogger("python_multipart.multipart").setLevel(logging.CRITICAL)


def log_to_stderr(*names: str) -> logging.Handler:
    """Log everything from the loggers of these names to standard error, and nowhere else; return what does it."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter() if sys.stderr.isatty() else JsonFormatter())
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return handler
