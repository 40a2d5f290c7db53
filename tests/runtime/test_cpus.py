"""available_cpus: the affinity and the quotas of cgroups, read from the files of a simulated system."""

import os
from pathlib import Path

import pytest

from pdeinfer.runtime.cpus import available_cpus


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


def test_the_affinity_is_the_limit_without_cgroups(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 8


def test_all_cpus_count_on_systems_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_cpus(tmp_path) == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("200000 100000", 2), ("290000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("9900000 100000", 8)],
)
def test_a_cgroup_v2_quota_is_the_limit(tmp_path: Path, quota: str, cpus: int) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"})
    assert available_cpus(root) == cpus


def test_the_smallest_quota_of_all_ancestors_is_the_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/container\n",
        "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n",
        "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/cpu.max": "600000 100000\n",
    }
    assert available_cpus(write(tmp_path, files)) == 3


@pytest.mark.parametrize(
    ("quota", "period", "cpus"), [("400000", "100000", 4), ("-1", "100000", 8), ("1000", "100000", 1)]
)
@pytest.mark.parametrize("group", ["", "docker/abc"])
def test_a_cgroup_v1_quota_is_the_limit(tmp_path: Path, group: str, quota: str, period: str, cpus: int) -> None:
    folder = f"sys/fs/cgroup/cpu/{group}"
    files = {
        "proc/self/cgroup": f"5:memory:/other\n4:cpu,cpuacct:/{group}\n1:name=systemd:/\n",
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": f"{period}\n",
    }
    assert available_cpus(write(tmp_path, files)) == cpus


def test_the_mounts_quota_is_used_if_the_cgroup_path_is_the_hosts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(write(tmp_path, files)) == 2


@pytest.mark.parametrize("content", ["", "garbage", "max", "1 0", "-1 100000 3", "x y"])
def test_malformed_files_are_ignored(tmp_path: Path, content: str) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\nnonsense\n", "sys/fs/cgroup/cpu.max": content})
    assert available_cpus(root) == 8
