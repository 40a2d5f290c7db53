"""The Dockerfile as data, and its build stage done without an engine."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    name: str
    argument: str

    def exec_form(self) -> list[str]:
        """The argument's JSON array; a shell form fails here."""
        command: Any = json.loads(self.argument[self.argument.index("[") :])
        return command


def read_stages() -> list[list[Instruction]]:
    """Return the instructions of every stage, from FROM to the next FROM."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in filter(None, text.splitlines()):
        name, _, argument = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, argument.strip()))
    return stages


def build(stage: list[Instruction], root: Path) -> None:
    """Do the stage's COPY and RUN, with a bare virtual environment as the base image and `root` in place of `/`.

    What apt-get would install is this machine's, or is not there.
    """
    base, work = root / "base", root / "src"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", base], check=True)
    environment = {**os.environ, "PATH": f"{base / 'bin'}:/usr/bin:/bin"}
    for instruction in stage:
        argument = instruction.argument
        match instruction.name:
            case "COPY":
                *sources, destination = argument.split()
                for source in sources:
                    _copy(ROOT / source, work / destination)
            case "ARG":
                name, _, default = argument.partition("=")
                environment[name] = default
            case "RUN" if argument.startswith("apt-get "):
                pass
            case "RUN":
                command = re.sub(r"(?<=[\s(])/(opt|dist)\b", rf"{root}/\1", re.sub(r"--mount=\S+", "", argument))
                done = subprocess.run(
                    ["/bin/sh", "-c", command], cwd=work, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"
            case "FROM":
                pass
            case "WORKDIR":
                assert argument == "/src"
            case other:
                raise NotImplementedError(f"{other} in the build stage")


def _copy(source: Path, destination: Path) -> None:
    """Copy as COPY does: a file into an existing folder, or the content of a folder."""
    if source.is_dir():
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        destination.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, destination)
