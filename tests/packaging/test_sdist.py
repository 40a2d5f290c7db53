"""The sdist holds what git knows, and nothing that lies beside it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder

from scripts.dist import untracked
from tests.servers import ROOT

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="there is no git here")


def files_of_sdist(project: Path) -> set[str]:
    return {file.distribution_path for file in SdistBuilder(str(project)).recurse_included_files()}


def test_files_that_lie_in_the_checkout_stay_out(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("docs/index.md", "body.json", "photos/cat.jpg", "docs.zip", "my/docs/letter.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert files_of_sdist(tmp_path) == {"pyproject.toml", "README.md", "docs/index.md"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
@needs_git
def test_every_file_that_git_knows_is_in_the_sdist() -> None:
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout

    # hatchling adds .gitignore itself.
    assert set(known.split("\0")) - {"", ".gitignore"} <= files_of_sdist(ROOT)


@needs_git
def test_a_file_that_is_not_in_git_is_noticed(tmp_path: Path) -> None:
    checkout, source = tmp_path / "checkout", tmp_path / "source"
    for name in ("known.py", "docs/new.md", "docs/.env", "beside.jpg"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    assert untracked(checkout, checkout) == []  # no repository
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    subprocess.run(["git", "add", "known.py"], cwd=checkout, check=True)
    (checkout / ".git/info").mkdir(exist_ok=True)
    (checkout / ".git/info/exclude").write_text(".env\n")
    shutil.copytree(checkout, source, ignore=shutil.ignore_patterns(".git", "*.jpg"))
    (source / "PKG-INFO").touch()

    assert untracked(checkout, source) == ["docs/.env", "docs/new.md"]


@needs_git
def test_a_repository_that_git_refuses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        untracked(tmp_path, tmp_path)
