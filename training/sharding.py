"""FSDP2: weights, gradients, moments and averages cut into as many pieces as there are processes.

Each layer is one group, what lies outside of them (`decoder.Whole`) another. Frozen bf16 weights and fp32 masters may
share a group (torch 2.13 asks for one format among the trainable ones only). Layers are brought together in the
format they compute in, which halves the traffic of full fine-tuning and changes no number: a single process rounds the
masters at the same place. Outside the layers the masters travel as they are, for the embedding's gradient is a sum over
many rows and so is the head's.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from diffcode.training.distributed import World
from diffcode.training.stage import Stage


def shard(stage: Stage, world: World) -> None:
    """Leave each process its piece of the stage's weights. A world of one keeps them whole."""
    if world.size == 1:
        return
    decoder = stage.decoder
    mesh = init_device_mesh(decoder.backbone.device.type, (world.size,))
    policy = MixedPrecisionPolicy(decoder.backbone.dtype, torch.float32, cast_forward_inputs=False)
    groups = [fully_shard(layer, mesh=mesh, mp_policy=policy) for layer in decoder.layers]
    # Kept whole after a forward, as is usual for the root, the weights of a validation would serve the next step too.
    groups.append(fully_shard(stage.whole, mesh=mesh, reshard_after_forward=True))
    for group in groups:  # gradients are sums over texts: the loop divides by the weight of all of them
        group.set_gradient_divide_factor(1.0)
        group.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it adds
    # The decoder asks its backbone for sizes and positions only; its whole weights may go.
    decoder.backbone = copy.copy(decoder.backbone)
    decoder.backbone.layers = []
    decoder.backbone.embedding_VD = decoder.backbone.head_VD = decoder.backbone.norm_D = torch.empty(0)


def local(tensor: Tensor) -> Tensor:
    """This process's piece."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(pattern: Tensor, value: Tensor) -> Tensor:
    """`value` where `pattern` is, and cut as it is."""
    if isinstance(pattern, DTensor) and not isinstance(value, DTensor):
        whole = value.to(pattern.device)
        return distribute_tensor(whole, pattern.device_mesh, pattern.placements, src_data_rank=None)
    return value.to(pattern.device)


def collected(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """All pieces of each tensor put together, on the CPU of the process that leads; the others get nothing."""
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if world.leads:
            found[name] = whole.detach().cpu()
    return found
