"""Where settings come from, beside flags: environment variables and a TOML file."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource, SettingsError

PREFIX = "PDEINFER_"
# Variables of others: of the fused operator, and of the tests, which start servers.
_OTHER_VARIABLES = {"KERNEL", "DATA_DIR", "FUZZ_SECONDS", "RELIABILITY"}
# What Kubernetes sets in every pod for a service "pdeinfer" or "pdeinfer-NAME". Its PDEINFER_PORT is no number.
_SERVICE_LINK = re.compile(
    r"pdeinfer_(\w+_)?((service_(host|port(_\w+)?)|port_\d+_(tcp|udp|sctp)\w*)=.*|port=(tcp|udp|sctp)://.*)", re.DOTALL
)


class Environment(EnvSettingsSource):
    """The environment variables, without those that Kubernetes sets for services."""

    def __call__(self) -> dict[str, Any]:
        """Return the values by setting.

        Raises:
            SettingsError: a variable that begins with PDEINFER_ is no setting; ignored, it could leave the server open.
        """
        # In lower case, whatever case they have.
        variables = {
            name: text for name, text in self.env_vars.items() if not _SERVICE_LINK.fullmatch(f"{name}={text}")
        }
        settings = [name.upper() for name in self.settings_cls.model_fields]
        for name in map(str.upper, variables):
            own = name.removeprefix(PREFIX)
            if own == name or own in settings or own in _OTHER_VARIABLES:
                continue
            nearest = difflib.get_close_matches(own, settings, 1)
            hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else f"expected {PREFIX} and a setting's name"
            raise SettingsError(f"unknown environment variable {name}: {hint}")
        self.env_vars = variables
        return super().__call__()


class File(PydanticBaseSettingsSource):
    """The TOML file that the flag or the variable names."""

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        if path is None:
            return {}
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # also with a byte order mark
        except OSError as error:
            raise SettingsError(f"config: {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SettingsError(f"config: {path} is not TOML: {error}") from error
        if "config" in values:
            raise SettingsError(f"unknown setting 'config' in {path}: a file cannot name another one")
        return values

    def get_field_value(self, *_: object) -> tuple[Any, str, bool]:
        raise NotImplementedError  # required by the base class, but __call__ reads all fields at once
