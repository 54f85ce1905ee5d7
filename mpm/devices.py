"""Devices: where a network is trained, in which precision, and by how many processes."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mpm import artefacts
from mpm.memory import keep_freed_memory

if TYPE_CHECKING:  # takes a second to import, which only training has to wait for
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricModule


def device_of(name: str) -> torch.device:
    """Return a device by name; "auto" takes a CUDA device if there is one.

    Also sets the number of CPU threads (`artefacts.threads`): the same number gives the same
    weights, another number may not. And has freed memory kept for the next step.

    Raises
    ------
    ValueError
        If there is no such kind of device.
    """
    keep_freed_memory()
    torch.set_num_threads(artefacts.threads())
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device; give auto, cpu, cuda, cuda:N or mps") from error


def fabric_on(device: torch.device | str, *, devices: int = 1, nodes: int = 1) -> "Fabric":
    """Return what trains on a device, or on many by data parallelism (DDP).

    Several processes share every batch and average their gradients. Where torchrun or SLURM has
    started them, each finds its place in the environment; else this starts the others of this
    machine, which run the same command as this process from its beginning.

    Parameters
    ----------
    device : torch.device or str
        GPUs that know bfloat16 multiply in it (autocast); all others compute in float32.
    devices : int
        Processes on a machine: one a GPU, or with device "cpu" as many as share the processors.
    nodes : int
        Machines.

    Returns
    -------
    Fabric
        Launched.

    Raises
    ------
    ValueError
        If there are not as many GPUs, or the numbers are not positive.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment

    if not torch.cuda.is_available():
        # Lightning sets it when imported; then every optimizer step looks for a GPU's library
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    place = torch.device(device)
    _check(place, devices, nodes)
    half = place.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    options: dict[str, Any] = {
        "accelerator": place.type,
        "precision": "bf16-mixed" if half else "32-true",
    }
    if devices * nodes == 1:
        number = [place.index or 0] if place.type == "cuda" else 1
        # one process is one process, also where a cluster's variables are set
        return Fabric(devices=number, plugins=LightningEnvironment(), **options)
    fabric = Fabric(devices=devices, num_nodes=nodes, strategy="ddp", **options)
    fabric.launch()
    torch.set_num_threads(max(1, artefacts.threads() // devices))
    return fabric


def _check(place: torch.device, devices: int, nodes: int) -> None:
    if devices < 1 or nodes < 1:
        raise ValueError(f"{devices} devices on {nodes} nodes: give at least one of each")
    there = torch.cuda.device_count()
    if place.type == "cuda" and devices > there:
        raise ValueError(f"{devices} GPUs were asked for, this machine has {there}")


def set_up(
    model: nn.Module, fabric: "Fabric", *, methods: Sequence[str], compiled: bool
) -> "_FabricModule":
    """Wrap a model that lies on the fabric's device for training.

    Parameters
    ----------
    model : Module
    fabric : Fabric
    methods : sequence of str
        Those that are called to train, as `forward` would be.
    compiled : bool
        Whether blocks are compiled on GPUs. Where there is no Triton they are not.

    Returns
    -------
    Module
        With the model's attributes, methods and names of weights.
    """
    if compiled and fabric.device.type == "cuda" and find_spec("triton"):
        compile_blocks(model)
    wrapped = fabric.setup_module(model)
    for method in methods:
        wrapped.mark_forward_method(method)
    return wrapped


def compile_blocks(model: nn.Module) -> None:
    """Have a network's blocks compiled when they first run; names of its weights stay.

    Blocks are alike, so this takes a fraction of the time that the whole network would take, and
    whatever lies between them may be plain Python.
    """
    for part in model.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                block.compile()


def check_same(number: int, fabric: "Fabric", what: str) -> None:
    """Make sure that all processes have the same number.

    Raises
    ------
    ValueError
        If they do not.
    """
    least, most = (
        # a tensor each, as it is reduced in its place
        torch.as_tensor(
            fabric.all_reduce(torch.tensor(number, device=fabric.device), reduce_op=which)
        ).item()
        for which in ("min", "max")
    )
    if least != most:
        raise ValueError(
            f"{what} differs between processes ({least} to {most}): keep files where all nodes see "
            "the same ones under the same path"
        )
