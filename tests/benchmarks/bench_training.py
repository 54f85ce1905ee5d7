"""Pretraining at preset `paper` beside a plain matrix product, and the memory it takes.

Run by hand, on a quiet machine: `python tests/benchmarks/bench_training.py`. Before every step a
matrix product is timed, so slow minutes fall on both. Counted are the floating-point operations of
all matrix products of a step, forward and backward, those within attention included; not those of
single cells (normalisation, GELU, softmax), of the masks, or of the optimizer. MPM_THREADS sets the
number of threads. On a CUDA device the product is one of bfloat16.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from ratios import child, peak_memory, random_windows, report
from torch.utils.flop_counter import FlopCounterMode

from mpm import mae, training
from mpm.devices import device_of
from mpm.windows import Windows

LAYERS = 14
SHAPE = (202, 277)
BATCH, STEPS = {"cpu": 256, "cuda": 1024}, {"cpu": 12, "cuda": 60}
SQUARE = {"cpu": 2048, "cuda": 8192}  # rows and columns of the plain product
NOMINAL = {"H100": 989, "H200": 989, "A100": 312}  # TFLOP/s, bfloat16, dense, as the maker says


def main() -> None:
    """Print rates, their share, and the peak memory of the published batch."""
    device = device_of("auto")
    config = mae.preset("paper", LAYERS)
    bench_rate(config, device, random_windows(SHAPE, LAYERS, config.window))
    report("peak memory of batch 1024, in parts (GB)", float(child(__file__, "--peak")), 3)


def bench_rate(config: mae.MAEConfig, device: torch.device, windows: Windows) -> None:
    """Time steps and products by turns, and report the best of both."""
    batch, side = BATCH[device.type], SQUARE[device.type]
    settings = replace(training.PRETRAIN_PRESETS["paper"], batch=batch, steps=STEPS[device.type])
    of_step = batch * operations(config)
    steps, products = time_steps(config, settings, device, windows, plain_product(side, device))
    rate, plain = of_step / min(steps) / 1e9, 2 * side**3 / min(products) / 1e9
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else gpu()
    report(f"a training step of {batch} windows, {where}: operations (GFLOP)", of_step / 1e9)
    report("  windows a second", batch / min(steps))
    report("  training (GFLOP/s)", rate)
    report(f"  plain product of {side} x {side} (GFLOP/s)", plain)
    report("  share", rate / plain, 0.75, least=True)
    for name, nominal in NOMINAL.items():
        if device.type == "cuda" and name in gpu():
            report(f"  share of the nominal peak, {nominal} TFLOP/s", rate / nominal / 1e3)


def operations(config: mae.MAEConfig, batch: int = 4) -> float:
    """Count the floating-point operations of a training step on one window."""
    windows = random_windows((8, 8), config.layers, config.window)
    settings = training.PretrainSettings(steps=1, batch=batch)
    train, none = np.arange(len(windows)), np.array([], int)
    # the counter does not know these; the backward pass is four products, what is computed again
    # in it not counted
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    known = {
        attention: lambda query, *_, **__: 2 * product_of_attention(query),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda _, query, *__, **___: 4 * product_of_attention(query)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        cpu = torch.device("cpu")
        training.pretrain(config, windows, train, none, settings, seed=0, device=cpu)
    return counter.get_total_flops() / batch


def product_of_attention(shape: tuple[int, int, int, int]) -> int:
    """Count the operations of queries times keys, (windows, heads, tokens, width) each."""
    windows, heads, tokens, width = shape
    return 2 * windows * heads * tokens**2 * width


def time_steps(
    config: mae.MAEConfig,
    settings: training.PretrainSettings,
    device: torch.device,
    windows: Windows,
    product: Callable,
) -> tuple[list[float], list[float]]:
    """Return the seconds of every step but the first two, and of the products before them."""
    taken, products = [], []

    def clock(steps: Iterable, **_) -> Iterator:
        for step in steps:
            products.append(seconds(product, device))
            started = time.perf_counter()
            yield step
            synchronize(device)
            taken.append(time.perf_counter() - started)

    train, none = np.arange(len(windows)), np.array([], int)
    with mock.patch.object(training, "tqdm", clock):
        training.pretrain(config, windows, train, none, settings, seed=0, device=device)
    return taken[2:], products[2:]


def plain_product(side: int, device: torch.device) -> Callable:
    """Return a product of square matrices, float32 on a CPU and bfloat16 on a GPU."""
    kind = torch.float32 if device.type == "cpu" else torch.bfloat16
    one, other, into = (torch.randn(side, side, dtype=kind, device=device) for _ in range(3))
    return lambda: torch.mm(one, other, out=into)


def seconds(work: Callable, device: torch.device) -> float:
    """Return the seconds of a work, to its end."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gpu() -> str:
    """Return the name of the GPU."""
    return torch.cuda.get_device_name()


def measure_peak() -> None:
    """Train two steps of the published batch on the CPU, and print the peak memory (GB)."""
    config = mae.preset("paper", LAYERS)
    windows = random_windows(SHAPE, LAYERS, config.window)
    settings = replace(training.PRETRAIN_PRESETS["paper"], steps=2)
    train, none = np.arange(len(windows)), np.array([], int)
    cpu = device_of("cpu")
    training.pretrain(config, windows, train, none, settings, seed=0, device=cpu)
    print(peak_memory())


if __name__ == "__main__":
    measure_peak() if sys.argv[1:] == ["--peak"] else main()
