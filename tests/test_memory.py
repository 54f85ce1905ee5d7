from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from mpm import memory
from mpm.memory import enough_memory

WINDOWS = SimpleNamespace(size=33, layers=14)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Tried to allocate 20 MiB. GPU 0 is full; CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 40 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError("Unable to allocate 71.1 PiB"),
    ],
)
def test_want_of_memory_names_batch_window_and_layers(error):
    "Whoever raised it, with what was done, what to change, and the first error behind it"
    with (
        pytest.raises(
            MemoryError, match="fine-tuning with batch 64 .* 33 x 33 .* 14 layers: use"
        ) as caught,
        enough_memory("fine-tuning", WINDOWS, 64),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("take", [torch.empty, np.empty])
def test_what_this_machine_says_is_understood(take):
    "40 petabytes are more than any machine has"
    with pytest.raises(MemoryError, match="batch 64"), enough_memory("a test", WINDOWS, 64):
        take(10**16)


def test_the_remedy_and_what_is_kept_may_be_told():
    "What is kept is asked when memory runs out, not before"
    kept = []

    class Kept:
        def __str__(self):
            return f"; {kept[0]} stays"

    with (
        pytest.raises(MemoryError, match="14 layers: lower `batch`; step 3 stays$"),
        enough_memory("pretraining", WINDOWS, 8, remedy="lower `batch`", kept=Kept()),
    ):
        kept.append("step 3")
        raise MemoryError


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("no positives")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, enough_memory("a test", WINDOWS, 64):
        raise error
    assert caught.value is error


GB = 1_000_000_000
VERSION_1 = "12:cpuset:/kubepods/x\n5:memory:/kubepods/x\n0::/\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    "Of 64 GB; called with what Linux tells of its control groups, by path, returns its root"

    def tell(groups, limits):
        for place, text in {"proc/self/cgroup": groups, **limits}.items():
            path = tmp_path / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GB))
    return tell


@pytest.mark.parametrize(
    ("groups", "limits", "least"),
    [
        # a container that sees itself as the root, version 2
        ("0::/\n", {"memory.max": 2 * GB}, 2),
        # a machine: the group, and one that it lies in
        ("0::/user/me\n", {"user/memory.max": 8 * GB, "user/me/memory.max": "max"}, 8),
        ("0::/user/me\n", {"user/memory.max": 8 * GB, "user/me/memory.max": 3 * GB}, 3),
        # version 1, whose group a container names but does not see
        (VERSION_1, {"memory/memory.limit_in_bytes": 2 * GB}, 2),
        (VERSION_1, {"memory/kubepods/x/memory.limit_in_bytes": 4 * GB}, 4),
        # no limit
        (VERSION_1, {"memory/memory.limit_in_bytes": 2**63 - 4096}, 64),
        ("0::/\n", {"memory.max": "max"}, 64),
        ("0::/\n", {}, 64),
    ],
)
def test_the_least_limit_counts(machine, groups, limits, least):
    "Of the machine, the container's group and all that it lies in"
    root = machine(groups, {f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in limits.items()})
    assert memory.limit(root) == least * GB


def test_without_control_groups_the_machine_is_the_limit(machine, tmp_path):
    assert memory.limit(tmp_path) == 64 * GB


@pytest.mark.parametrize(("there", "fit"), [(1, 1), (2, 1), (4, 2), (16, 3)])
def test_where_memory_ends_fewer_processes_work(monkeypatch, there, fit):
    "On Binder, with 1 or 2 GB, one; where there is enough as many as wanted"
    monkeypatch.setattr(memory, "limit", lambda: there * GB)
    assert memory.processes_that_fit(3) == fit
    monkeypatch.setenv("MPM_THREADS", "3")
    assert memory.processes_that_fit(0) == fit
