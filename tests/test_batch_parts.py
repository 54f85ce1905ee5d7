from types import SimpleNamespace

import pytest
import torch

from mpm import batch_parts, mae

PAPER = mae.preset("paper", 14)


def test_a_cpu_takes_few_windows_at_a_time():
    "1024 windows would need more memory than most machines have; a small batch is one part"
    cpu = torch.device("cpu")
    assert batch_parts.windows_at_a_time(PAPER, 1024, cpu) == 64
    assert batch_parts.windows_at_a_time(PAPER, 300, cpu) == 60
    assert batch_parts.windows_at_a_time(PAPER, 64, cpu) == 0


@pytest.mark.parametrize(("gigabytes", "expected"), [(80, 0), (8, 512), (4, 342)])
def test_a_gpu_takes_as_many_windows_as_fit(monkeypatch, gigabytes, expected):
    "5.7 MB each in 60 % of its memory: all 1024, two parts, three parts"
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda _: SimpleNamespace(total_memory=gigabytes * 1e9),
    )
    assert batch_parts.bytes_of_a_window(PAPER) == pytest.approx(5.7e6, rel=0.02)
    gpu = torch.device("cuda")
    assert batch_parts.windows_at_a_time(PAPER, 1024, gpu) == expected
    assert batch_parts.windows_at_a_time(PAPER, 128, gpu) == 0
