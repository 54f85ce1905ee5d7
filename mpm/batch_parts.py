"""How many windows of a batch are in memory at a time: what suits a device."""

import torch

from mpm import mae

AUTO = -1  # of `training.PretrainSettings.micro`: as `windows_at_a_time` says
CPU_MICRO = 64  # of preset "paper": few enough for two at a time on a batch of 1024 in 3 GB
GPU_SHARE = 0.6  # of a GPU's memory that the windows of a batch may take


def windows_at_a_time(config: mae.MAEConfig, share: int, device: torch.device) -> int:
    """Return how many windows of a batch are in memory at a time; 0: all of them.

    On a GPU as many as fit, in parts of the same size, as every part leaves it waiting for the next
    one; on a CPU few, which is as fast.

    Parameters
    ----------
    config : MAEConfig
    share : int
        Windows of a batch that fall to this process.
    device : torch.device
    """
    most = CPU_MICRO
    if device.type == "cuda":  # of all its memory: what is free now may be less at another start
        room = GPU_SHARE * torch.cuda.get_device_properties(device).total_memory
        most = max(1, int(room / bytes_of_a_window(config)))
    return 0 if share <= most else -(-share // -(-share // most))


def bytes_of_a_window(config: mae.MAEConfig) -> int:
    """Estimate what a window keeps in memory for the backward pass, in float32 (bytes).

    A block keeps about 17 numbers a token and feature; a mask is taken to leave its share of the
    patches to the encoder. With 14 layers and preset `paper` 5.7 MB, where 6.1 MB are measured.
    """
    kept = config.tokens * (1 - config.mask_ratio if config.task in ("patches", "both") else 1)
    encoder = (kept + 1) * config.width * config.depth
    decoder = (config.tokens + 1) * config.decoder_width * config.decoder_depth
    return int(4 * (17 * (encoder + decoder) + 5 * config.layers * config.window**2))
