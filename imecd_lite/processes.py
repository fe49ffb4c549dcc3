"""Training in several processes, one batch between them: who does which rows, and what they tell each other.

``accelerate launch -m imecd_lite train ...`` starts them, one a GPU, on one machine or on many. A process that is
alone has all rows, and what it hears is what it said.
"""

# B batch, b rows of one process

from __future__ import annotations

import io
import os
import sys

import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_gather

from imecd_lite.errors import InputError


def join() -> torch.device | None:
    """Meet the other processes, if a launcher has started any, and fall silent unless first: this one's device.

    None where there are no others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import PartialState  # slow to import

    state = PartialState()
    if not is_main():
        sys.stdout = io.StringIO()
    return state.device


def mixed_precision() -> str:
    """What ``accelerate launch --mixed_precision`` asks for: "bf16", matrix products in bfloat16, or "no".

    Weights, embeddings, codes and losses are float32 in either.

    Raises:
        InputError: it asks for fp16 or fp8, which would need the losses scaled.
    """
    wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if wanted not in ("no", "bf16"):
        raise InputError(f"Mixed precision {wanted!r} is not offered; launch with --mixed_precision bf16 or no.")
    return wanted


def num_processes() -> int:
    """How many share each batch."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_index() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the one that writes files and shows what goes on."""
    return process_index() == 0


def wait() -> None:
    """Until all processes are here."""
    if num_processes() > 1:
        distributed.barrier()


def own_rows(size: int) -> slice:
    """The rows of a batch of ``size``, a multiple of the number of processes, that are this one's."""
    share = size // num_processes()
    return slice(process_index() * share, (process_index() + 1) * share)


def gather(rows: torch.Tensor) -> torch.Tensor:
    """The rows (b, ...) of all processes in the order of the batch, (B, ...); gradients find the way back."""
    return torch.cat(all_gather(rows.contiguous())) if num_processes() > 1 else rows


def total(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of ``tensor`` over all processes, in place."""
    if num_processes() > 1:
        distributed.all_reduce(tensor)
    return tensor


def mean_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over the processes: that of the whole batch, where each loss is a mean."""
    if num_processes() == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    joined = total(torch.cat([gradient.flatten() for gradient in gradients])) / num_processes()
    for gradient, part in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def share_codes(codes: torch.Tensor) -> None:
    """Give all processes the first one's ``codes``, in place."""
    if num_processes() > 1:
        distributed.broadcast(codes, src=0)
