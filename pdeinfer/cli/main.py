"""The `pdeinfer` command: parses its arguments, runs one command and turns errors into exit codes."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

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
        return 0 if arguments[:1] == ["serve"] else 130
    except BrokenPipeError:  # the reader, such as `head`, has stopped reading
        return 1
    except (PdeinferError, OSError, MemoryError) as error:  # OSError: a full disk, a missing permission
        with suppress(OSError):
            print_error(error)
        return 1 if isinstance(error, ParityError) else 2
    finally:
        _discard_unwritable()


def _run(arguments: list[str]) -> int:
    warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no image, and those that matter are errors
    try:
        if arguments[:1] in (["serve"], ["train"]):  # these two parse their own arguments
            return _import_command(arguments[0])(arguments[1:])
        from pdeinfer.cli.arguments import make_parser  # it takes a moment, in which `main` handles Ctrl-C

        options = make_parser().parse_args(arguments)
        return _import_command(options.command)(options)
    except SystemExit:  # by which argparse ends after --help
        sys.stdout.flush()
        raise


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


def _discard_unwritable() -> None:
    """Redirect streams that fail to the null device: the interpreter flushes them at exit, which would fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
