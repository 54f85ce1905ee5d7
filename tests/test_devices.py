import pytest
import torch
from helpers import tiny

from mpm import devices, mae
from mpm.devices import compile_blocks, device_of, fabric_on


def test_threads_and_devices_are_set_by_name(monkeypatch):
    "MPM_THREADS decides the number of threads; auto takes a GPU only if there is one"
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("MPM_THREADS", "2")
        assert device_of("cpu") == torch.device("cpu")
        assert torch.get_num_threads() == 2
        for there, name in [(True, "cuda"), (False, "cpu")]:
            monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
            assert device_of("auto").type == name
    finally:
        torch.set_num_threads(before)


def test_one_process_is_a_world_of_its_own(monkeypatch):
    "In float32, also where a cluster says that there are others"
    for name in ("WORLD_SIZE", "RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    fabric = fabric_on("cpu")
    assert (fabric.world_size, fabric.global_rank, fabric.device.type) == (1, 0, "cpu")
    assert fabric.strategy.precision.precision == "32-true"


@pytest.mark.parametrize(("count", "nodes"), [(0, 1), (1, 0), (-2, -1)])
def test_no_device_is_refused(count, nodes):
    with pytest.raises(ValueError, match=f"{count} devices on {nodes} nodes: give at least one"):
        fabric_on("cpu", devices=count, nodes=nodes)


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    "Before any process starts"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ValueError, match="8 GPUs were asked for, this machine has 4"):
        fabric_on("cuda", devices=8)


def test_a_model_that_is_set_up_keeps_its_names_and_methods():
    "So that checkpoints fit whatever trained them"
    model, fabric = mae.build(tiny(), 1), fabric_on("cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = devices.set_up(model, fabric, methods=["loss"], compiled=True)
    after = wrapped.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert wrapped.config == tiny() and wrapped.loss.__func__ is mae.MaskedAutoencoder.loss


def test_compiled_blocks_keep_the_names_of_their_weights(monkeypatch):
    "Encoder's and decoder's blocks, and nothing between them"
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block: compiled.append(block))
    model = mae.build(tiny(depth=2), 1)
    compile_blocks(model)
    assert compiled == [*model.encoder.blocks, *model.blocks] and len(compiled) == 3


def test_processes_with_the_same_number_agree():
    "One always does; of several, see test_training"
    devices.check_same(3, fabric_on("cpu"), "step")
