"""Counts the CPUs that this process may use."""

import os
from pathlib import Path

MAX_THREADS = 1024  # of ONNX Runtime, which starts all that it is asked for


def available_cpus(root: Path = Path("/")) -> int:
    """Return how many CPUs this process may use: its affinity, capped by the quota of its cgroups; at least 1.

    A fractional quota is rounded down: the kernel would stop a thread beyond it while the others wait for that thread.

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *(int(quota) for quota in _cgroup_quotas(root))]))


def _cgroup_quotas(root: Path) -> list[float]:
    """Return the quotas, in CPUs, of this process's cgroups (version 1 and 2) and of their ancestors."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if hierarchy == "0":  # version 2
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        folder = mount / group.lstrip("/")
        # In a container the group's path is the host's and only the mount itself exists.
        for ancestor in (folder, *folder.parents):
            quotas.append(_quota(ancestor))
            if ancestor == mount:
                break
    return [quota for quota in quotas if quota is not None]


def _quota(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
