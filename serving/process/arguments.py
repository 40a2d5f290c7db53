"""The command line of `pdeinfer serve`."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource, SettingsError

from serving.settings import Settings

_PROG = "pdeinfer serve"
# What pydantic-settings calls a value, and what the help calls it; None: the flag's own name.
_METAVARS = {
    "int": "N",
    "float": "N",
    "{int,auto}": "{N,auto}",
    "str": None,
    "Path": "FILE",
    "tuple[SecretStr,...]": "FILE",
    "tuple[str,...]": "ORIGINS",
    "dict[str,JSON]": "JSON",
}
_EMPTY_DEFAULT = re.compile(r" \(default(?: factory)?: (?:None|\(\)|dict)\)$")
_EPILOG = """\
Every setting is also an environment variable, such as PDEINFER_PORT or PDEINFER_MODELS=digits-pde,mnist-pde, and a key
of the file that --config names: port = 9000. Keys are never flags: they come from files, one per line, or from
PDEINFER_API_KEYS and PDEINFER_ADMIN_KEYS, separated by commas. Unknown variables that begin with PDEINFER_ are refused.

signals: SIGTERM and SIGHUP drain and stop the server, Ctrl-C stops it without --drain-seconds; SIGUSR1 and SIGUSR2 are
ignored

exit codes: 0 stopped by a signal; 1 the address cannot be listened on, or a worker died during its start; 2 wrong
settings, model or device

examples:
  pdeinfer serve
  pdeinfer serve digits-pde ./my-package --port 9000 --workers 4
  curl -F file=@seven.png 'http://127.0.0.1:8000/classify?top_k=3'
"""


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings from command line flags, the environment and a file.

    Exits like argparse does: with code 0 after --help, with code 2 and one line on a wrong value.
    """
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description="Classify images over HTTP and gRPC.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for argument in arguments:
        if key_flag := re.match(r"--(api|admin)-keys?(=|$)", argument):
            parser.exit(2, f"{_PROG}: other users of a machine see flags: --{key_flag[1]}-keys-file names a file\n")
    source = CliSettingsSource[argparse.ArgumentParser](Settings, root_parser=parser, add_argument_method=_add_argument)
    try:
        return CliApp.run(Settings, cli_args=list(arguments), cli_settings_source=source)
    except SettingsError as error:
        parser.exit(2, f"{_PROG}: {error}\n")
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            parser.exit(2, f"{_PROG}: {message}\n")
        name = str(problem["loc"][0])
        place = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":  # in the file or in a model's settings; its value may be a key
            parser.exit(2, f"{_PROG}: unknown setting {place!r}\n")
        found = "" if "key" in name else f", not {problem['input']!r}"
        flag = "" if name.endswith("_keys") or name == "models" else f"--{name.replace('_', '-')} or "
        parser.exit(2, f"{_PROG}: {place} ({flag}PDEINFER_{name.upper()}): {message}{found}\n")


def _add_argument(parser: argparse.ArgumentParser, *names: str, **options: Any) -> argparse.Action:
    """Add an argument as pydantic-settings describes it, its value named for people and no empty default."""
    if "metavar" in options:
        options["metavar"] = _METAVARS.get(options["metavar"], options["metavar"])
    options["help"] = _EMPTY_DEFAULT.sub("", options["help"])
    if names == ("models",):
        options["action"] = _StoreWhole
    elif names[0].endswith("-keys-file"):
        options["action"] = _StoreOnce
    return parser.add_argument(*names, **options)


class _StoreWhole(argparse.Action):
    """Stores arguments in a tuple: pydantic-settings joins those of a list by commas, which folders may have too."""

    def __call__(
        self, _: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, __: object = None
    ) -> None:
        setattr(namespace, self.dest, tuple(values) if isinstance(values, list) else values)


class _StoreOnce(argparse.Action):
    """Stores the value of a flag that must not be repeated."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        if hasattr(namespace, self.dest):
            parser.exit(2, f"{_PROG}: {flag}: expected one file, got several: put all keys into one\n")
        setattr(namespace, self.dest, values)
