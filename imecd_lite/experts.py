"""ID-guided multimodal mixture of experts (ID-MoE), section III-C, Eq. 3-6."""

# I items, D hidden, N experts

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class ExpertsOutput(NamedTuple):
    """What the experts made of one modality."""

    embeddings: torch.Tensor  # (I, D)
    routing_weights: torch.Tensor  # (I, N), each row sums to 1
    router_logits: torch.Tensor  # (I, N)


class IDGatedExperts(nn.Module):
    """N linear experts for one modality; the item's ID embedding decides how they are mixed.

    Args:
        hidden_size: D.
        num_experts: N.
        gate_temperature: divides the router's logits; below 1 the gate chooses more sharply.
    """

    def __init__(self, hidden_size: int, num_experts: int, gate_temperature: float = 1.0) -> None:
        super().__init__()
        self.gate_temperature = gate_temperature
        self.gate = nn.Linear(hidden_size, num_experts)
        self.expert_weight = nn.Parameter(torch.empty(num_experts, hidden_size, hidden_size))  # (N, D out, D in)
        self.expert_bias = nn.Parameter(torch.zeros(num_experts, hidden_size))
        bound = hidden_size**-0.5  # nn.Linear's own
        nn.init.uniform_(self.expert_weight, -bound, bound)
        nn.init.zeros_(self.gate.weight)  # whatever the gates come to tell apart, they have learnt

    def forward(self, modality: torch.Tensor, id_embeddings: torch.Tensor) -> ExpertsOutput:
        """Mix the experts' views of ``modality`` (I, D) under the guidance of ``id_embeddings`` (I, D)."""
        if modality.shape != id_embeddings.shape:
            raise ValueError(
                f"modality and id_embeddings must have one shape, got {tuple(modality.shape)} "
                f"and {tuple(id_embeddings.shape)}"
            )
        router_logits = self.gate(id_embeddings) / self.gate_temperature  # (I, N)
        routing_weights = router_logits.softmax(dim=-1)  # Eq. 3, 4
        return ExpertsOutput(self.mix(modality, routing_weights), routing_weights, router_logits)

    def mix(self, modality: torch.Tensor, routing_weights: torch.Tensor) -> torch.Tensor:
        """Eq. 5, 6: the sum over experts n of ``routing_weights[:, n] * (W_n modality + b_n)``, (I, D)."""
        mixed = routing_weights @ self.expert_bias  # (I, D)
        for n, weight in enumerate(self.expert_weight):
            mixed = mixed + routing_weights[:, n : n + 1] * (modality @ weight.T)  # (I, D)
        return mixed
