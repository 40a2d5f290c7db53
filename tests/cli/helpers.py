"""What the tests of the commands share."""

import os

import pytest

Captured = pytest.CaptureFixture[str]

needs_terminal = pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")


def error_lines(capsys: Captured) -> list[str]:
    return capsys.readouterr().err.splitlines()
