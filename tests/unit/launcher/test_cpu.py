from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloner.process import usable_cores
from launcher.cpu import Cpu, find_cpu

GB = 1024**3


@pytest.fixture
def _big_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores for this process and 64 GB."""
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GB // 4096}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def found(root: Path, membership: str) -> Cpu:
    write(root / "membership", membership)
    return find_cpu(root / "membership", root / "cgroup")


pytestmark = pytest.mark.usefixtures("_big_machine")


def test_without_limits_it_is_the_machine_and_the_affinity(tmp_path: Path) -> None:
    assert find_cpu(tmp_path / "none", tmp_path / "none") == Cpu(8, 64 * GB)


def test_limits_of_cgroup_version_2_apply(tmp_path: Path) -> None:
    write(tmp_path / "cgroup/cpu.max", "200000 100000")
    write(tmp_path / "cgroup/memory.max", str(16 * GB))

    assert found(tmp_path, "0::/") == Cpu(2, 16 * GB)


def test_limits_of_cgroup_version_1_apply(tmp_path: Path) -> None:
    write(tmp_path / "cgroup/cpu/docker/abc/cpu.cfs_quota_us", "300000")
    write(tmp_path / "cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000")
    write(tmp_path / "cgroup/memory/docker/abc/memory.limit_in_bytes", str(8 * GB))

    assert found(tmp_path, "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:pids:/") == Cpu(3, 8 * GB)


def test_groups_without_limits_leave_the_machine_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "cgroup/cpu.max", "max 100000")
    write(tmp_path / "cgroup/memory.max", "max")
    write(tmp_path / "cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path / "cgroup/cpu/cpu.cfs_period_us", "100000")
    write(tmp_path / "cgroup/memory/memory.limit_in_bytes", "9223372036854771712")

    assert found(tmp_path, "0::/\n2:cpu:/\n4:memory:/") == Cpu(8, 64 * GB)


def test_the_smallest_limit_of_all_parent_groups_applies(tmp_path: Path) -> None:
    write(tmp_path / "cgroup/a/memory.max", str(4 * GB))
    write(tmp_path / "cgroup/a/b/memory.max", str(6 * GB))
    write(tmp_path / "cgroup/a/b/cpu.max", "max 100000")
    write(tmp_path / "cgroup/cpu.max", "400000 100000")

    assert found(tmp_path, "0::/a/b") == Cpu(4, 4 * GB)


def test_a_path_of_the_host_that_a_container_does_not_see_falls_back_to_the_root(tmp_path: Path) -> None:
    write(tmp_path / "cgroup/memory.max", str(4 * GB))

    assert found(tmp_path, "0::/system.slice/docker-abc.scope") == Cpu(8, 4 * GB)


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("1600000 100000", 8)])
def test_a_quota_is_rounded_down_to_whole_cores_and_at_least_one(tmp_path: Path, quota: str, cores: int) -> None:
    write(tmp_path / "cgroup/cpu.max", quota)

    assert found(tmp_path, "0::/").cores == cores


def test_what_starts_processes_by_cores_heeds_the_quota_too(tmp_path: Path) -> None:
    write(tmp_path / "cgroup/cpu.max", "200000 100000")
    write(tmp_path / "membership", "0::/")

    assert usable_cores(tmp_path / "membership", tmp_path / "cgroup") == 2
