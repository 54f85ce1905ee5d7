from types import SimpleNamespace

import numpy as np
import pytest
import torch

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
