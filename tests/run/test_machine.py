"""What a container, a job or a user leaves a process of the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from audioxai_utils.run import graph, machine, workflow
from audioxai_utils.study.settings import Settings

GIB = 2**30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes files of a system of 16 cores with 64 GiB left."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine.psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    monkeypatch.setattr(machine, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(proc__meminfo=meminfo(64))
    write.root = tmp_path
    return write


def meminfo(gib: int) -> str:
    """What Linux says of a machine of 96 GiB with so much left."""
    others = ("Buffers", "Cached", "SReclaimable", "Active", "Inactive", "Shmem", "Slab")
    sizes = {"MemTotal": 96 * 2**20, "MemFree": 1, "MemAvailable": gib * 2**20} | dict.fromkeys(others, 0)
    return "".join(f"{name}: {size} kB\n" for name, size in sizes.items())


def groups(system, lines: str, **files: str) -> tuple[int, int]:
    """(cores, GiB) under these control groups."""
    system(proc__self__cgroup=lines)
    for name, text in files.items():
        path = system.root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return machine.cores(), round(machine.memory() / GIB)


V2 = "0::/user.slice/job\n"
V1 = "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n0::/\n"
FREE = (16, 64)


@pytest.mark.parametrize(
    "lines, files, found",
    [
        ("", {}, FREE),
        (V2, {}, FREE),
        (V2, {"user.slice/job/cpu.max": "max 100000\n", "user.slice/job/memory.max": "max\n"}, FREE),
        (V2, {"user.slice/job/cpu.max": "200000 100000\n"}, (2, 64)),
        (V2, {"user.slice/job/cpu.max": "350000 100000\n"}, (3, 64)),
        (V2, {"user.slice/job/cpu.max": "50000 100000\n"}, (1, 64)),
        (V2, {"user.slice/job/cpu.max": "9900000 100000\n"}, FREE),
        (
            V2,
            {"user.slice/cpu.max": "400000 100000", "user.slice/job/cpu.max": "max 100000"},
            (4, 64),
        ),  # around
        (V2, {"user.slice/cpu.max": "400000 100000", "user.slice/job/cpu.max": "200000 50000"}, (4, 64)),
        (
            "0::/\n",
            {"cpu.max": "300000 100000", "memory.max": str(8 * GIB)},
            (3, 8),
        ),  # a container's own root
        (
            "0::/docker/x\n",
            {"cpu.max": "300000 100000", "memory.max": str(8 * GIB)},
            (3, 8),
        ),  # the host's path
        (V2, {"user.slice/memory.max": str(8 * GIB), "user.slice/job/memory.max": str(32 * GIB)}, (16, 8)),
        (V2, {"user.slice/job/memory.high": str(4 * GIB), "user.slice/job/memory.max": "max"}, (16, 4)),
        (V2, {"user.slice/job/cpu.max": "", "user.slice/job/memory.max": "what?"}, FREE),
        (
            V1,
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            FREE,
        ),
        (
            V1,
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            (2, 64),
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "100000"}, (5, 64)),
        (V1, {"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "0"}, FREE),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, FREE),
        (V1, {"memory/docker/memory.limit_in_bytes": str(6 * GIB)}, (16, 6)),
        ("1:cpu:/\n0::/a\n", {"unified/a/cpu.max": "700000 100000"}, (7, 64)),  # both versions at once
    ],
)
def test_quotas_and_limits_of_containers(system, lines, files, found):
    assert groups(system, lines, **files) == found


def test_affinity_and_quota_hold_together(system, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {5, 7})
    assert groups(system, V2, **{"user.slice/job/cpu.max": "400000 100000"})[0] == 2
    assert groups(system, V2, **{"user.slice/job/cpu.max": "100000 100000"})[0] == 1


def test_this_machine_says_something():
    assert 1 <= machine.cores() <= os.cpu_count()
    assert 2**26 < machine.memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("held", [0, 600_000_000])
def test_the_memory_of_a_program_is_its_own_and_not_that_of_whatever_started_it(held):
    started = f"from audioxai_utils.run import machine; own = b'x' * {held}; print(machine.peak_memory())"
    starter = f"""
import subprocess, sys
large = b"x" * 1_500_000_000
print(subprocess.check_output([sys.executable, "-c", {started!r}], text=True))
"""
    peak = int(subprocess.check_output([sys.executable, "-c", starter], text=True, timeout=60))
    assert held < peak < held + 400_000_000


@pytest.mark.parametrize(
    "gib, profile, at_once, threads",
    [(64, "quick", 16, 2), (9, "quick", 4, 4), (1, "quick", 1, 16), (64, "paper", 8, 2)],
)
def test_memory_decides_how_many_steps_run_at_once(system, tmp_path, gib, profile, at_once, threads):
    system(proc__meminfo=meminfo(gib))
    path, found = workflow.written(Settings(profile, results_dir=str(tmp_path), device="cpu"), tmp_path)
    assert found.at_once == at_once and found.cores == 16
    assert found.threads(8) == threads
    command = workflow.snakemake_command(found, tmp_path, path, [])
    assert command[command.index("--resources") + 1] == f"step={at_once}"


@pytest.mark.parametrize(
    "n, visible, found",
    [
        (0, None, []),
        (0, "0", []),
        (2, None, ["0", "1"]),
        (4, "2, 3", ["2", "3"]),
        (4, "", []),
        (4, "-1", []),
        (2, "GPU-8932f937,MIG-x/1/0", ["GPU-8932f937", "MIG-x/1/0"]),
    ],
)
def test_gpus_are_those_that_the_user_leaves(system, monkeypatch, n, visible, found):
    system(**{f"dev__nvidia{i}": "" for i in range(n)}, dev__nvidiactl="")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus() == found


STEP = """
import os, sys, time
from pathlib import Path
from audioxai_utils.run import machine
machine.gpus = lambda: ["0", "MIG-x/1/0", "GPU-2"]
machine.take_gpu(Path(sys.argv[1]), 2)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""


def test_steps_are_spread_over_the_gpus_and_a_killed_one_gives_its_back(tmp_path):
    def step():
        return subprocess.Popen([sys.executable, "-c", STEP, tmp_path], stdout=subprocess.PIPE, text=True)

    steps, seen = [], []
    try:
        for _ in range(6):
            steps.append(step())
            seen.append(steps[-1].stdout.readline().strip())
        assert sorted(seen[:3]) == sorted(seen[3:]) == ["0", "GPU-2", "MIG-x/1/0"]
        steps[4].send_signal(signal.SIGKILL)
        steps[4].wait()
        steps.append(step())
        assert steps[-1].stdout.readline().strip() == seen[4]
    finally:
        for each in steps:
            each.kill()
            each.wait()
            each.stdout.close()


def test_one_gpu_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for found in ([], ["0"]):
        monkeypatch.setattr(machine, "gpus", lambda found=found: found)
        machine.take_gpu(tmp_path, 2)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and not list(tmp_path.iterdir())


def test_only_steps_that_compute_take_a_gpu(tmp_path, monkeypatch):
    from audioxai_utils.run import step

    taken = []
    monkeypatch.setattr(step.machine, "take_gpu", lambda folder, n: taken.append((folder, n)))
    for device, stem in (
        ("cuda", "03_attributions"),
        ("cuda", "05_metrics_and_tables"),
        ("cpu", "03_attributions"),
    ):
        _, found = workflow.written(Settings(results_dir=str(tmp_path), device=device), tmp_path)
        step.take_gpu(graph.Step(stem), found, tmp_path)
    assert taken == [(tmp_path / "logs", graph.JOBS_PER_GPU)]


def test_steps_see_nothing_of_the_users_own_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    code = "import site, sys; print(site.ENABLE_USER_SITE, any(sys.argv[1] in place for place in sys.path))"
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env=workflow.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "False False\n"
