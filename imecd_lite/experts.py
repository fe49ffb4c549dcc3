"""ID-guided multimodal mixture of experts (ID-MoE), section III-C, Eq. 3-6."""

# I items, D hidden, N experts

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

GROUPING_STEPS = 250  # training steps before items are grouped: until then their embeddings are mostly noise


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
    """

    def __init__(self, hidden_size: int, num_experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, num_experts)
        self.expert_weight = nn.Parameter(torch.empty(num_experts, hidden_size, hidden_size))  # (N, D out, D in)
        self.expert_bias = nn.Parameter(0.5 * torch.randn(num_experts, hidden_size))  # experts differ from the start
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
        router_logits = self.gate(id_embeddings)  # (I, N)
        routing_weights = router_logits.softmax(dim=-1)  # Eq. 3, 4
        return ExpertsOutput(self.mix(modality, routing_weights), routing_weights, router_logits)

    def mix(self, modality: torch.Tensor, routing_weights: torch.Tensor) -> torch.Tensor:
        """Eq. 5, 6: the sum over experts n of ``routing_weights[:, n] * (W_n modality + b_n)``, (I, D)."""
        mixed = routing_weights @ self.expert_bias  # (I, D)
        for n, weight in enumerate(self.expert_weight):
            mixed = mixed + routing_weights[:, n : n + 1] * (modality @ weight.T)  # (I, D)
        return mixed


class ItemGroups(nn.Module):
    """The catalogue in N groups by ID embedding, one for each expert: what a gate is to learn to tell apart.

    K-means draws the groups once the embeddings say something; from then on the centres follow the items.

    Args:
        hidden_size: D.
        num_experts: N.
        decay: the share of its old value that a centre keeps in each step.
    """

    def __init__(self, hidden_size: int, num_experts: int, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("centres", torch.full((num_experts, hidden_size), torch.inf))  # far from every item
        self.register_buffer("age", torch.zeros((), dtype=torch.int64))  # training steps so far
        self.steps = 0  # the same, for the host, which need not wait for the device to tell
        self.register_load_state_dict_post_hook(ItemGroups.recall)

    def recall(self, *_: object) -> None:
        """Take over ``age`` as loaded."""
        self.steps = int(self.age)

    @property
    def formed(self) -> bool:
        """Whether there are groups yet."""
        return self.steps > GROUPING_STEPS

    @torch.no_grad()
    def nearest(self, id_embeddings: torch.Tensor) -> torch.Tensor:
        """The group of each item (I, D), (I,)."""
        distances = torch.cdist(id_embeddings, self.centres)  # NaN, by some ways to work it out, to one at infinity
        return distances.nan_to_num(nan=torch.inf, posinf=torch.inf).argmin(dim=1)

    @torch.no_grad()
    def update(self, id_embeddings: torch.Tensor) -> None:
        """Take a training step: form the groups when it is time, then move each centre towards its items (I, D)."""
        self.age += 1
        self.steps += 1
        if self.steps <= GROUPING_STEPS:
            return
        if self.steps == GROUPING_STEPS + 1:
            if not id_embeddings.isfinite().all():
                return
            from sklearn.cluster import KMeans  # slow to import, and needed once a run

            groups = min(len(self.centres), len(id_embeddings))
            fitted = KMeans(groups, n_init=10, random_state=0).fit(id_embeddings.cpu().numpy())
            self.centres[:groups] = torch.from_numpy(fitted.cluster_centers_)
            return
        nearest = self.nearest(id_embeddings)
        counts = F.one_hot(nearest, len(self.centres)).sum(dim=0)[:, None]  # (N, 1)
        means = torch.zeros_like(self.centres).index_add_(0, nearest, id_embeddings) / counts.clamp(min=1)
        moved = self.decay * self.centres + (1 - self.decay) * means
        self.centres.copy_(torch.where(counts > 0, moved, self.centres))
