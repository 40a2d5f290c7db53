"""The `pdeinfer` command: parses its arguments, runs one command and turns errors into exit codes."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pdeinfer.cli.arguments import make_parser
from pdeinfer.cli.output import print_error
from pdeinfer.errors import ParityError, PdeinferError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Raises:
        SystemExit: as argparse does, with code 2 for wrong usage and 0 for `--help` and `--version`.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _prepare_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has stopped reading
        _discard_output()
        return 1
    except (PdeinferError, OSError, MemoryError) as error:  # OSError: a full disk, a missing permission
        print_error(error)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        return 1 if isinstance(error, ParityError) else 2


def _run(arguments: list[str]) -> int:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no image, and those that matter are errors
    if arguments[:1] in (["serve"], ["train"]):  # these two parse their own arguments
        return _import_command(arguments[0])(arguments[1:])
    options = make_parser().parse_args(arguments)
    return _import_command(options.command)(options)


def _prepare_streams() -> None:
    """Replace closed streams by the null device; have the others escape what the terminal cannot show."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _import_command(name: str) -> Callable[[Any], int]:
    run: Callable[[Any], int] = importlib.import_module(f"pdeinfer.cli.{name}").run
    return run


def _discard_output() -> None:
    """Redirect stdout to the null device: the interpreter flushes it at exit, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
