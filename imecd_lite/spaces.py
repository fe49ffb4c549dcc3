"""Items as points: who is near whom by text, by picture and by behaviour (the ID embedding)."""

# I items, n of them, K neighbours, D size of a space

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from imecd_lite.encoders import Features
from imecd_lite.model import IMECD


def item_spaces(model: IMECD, features: Features | None) -> dict[str, torch.Tensor]:
    """Every item's ID embedding and what the encoders made of its text and picture, before Eq. 1 and 2.

    Args:
        model: its ID embeddings are read; (I, D).
        features: the text (I, d_txt) and the image (I, d_img); None for an ids-only dataset.

    Returns:
        "text", "image" and "id", each (I, its own size), row i - 1 for item i; "id" alone without features.
    """
    spaces = {} if features is None else {"text": features.text, "image": features.image}
    return spaces | {"id": model.item_embedding.weight[1:].detach().cpu()}


def nearest(vectors: torch.Tensor, items: torch.Tensor, k: int = 10) -> torch.Tensor:
    """The ``k`` items of greatest cosine to each of ``items``, themselves left out, nearest first.

    Args:
        vectors: (I, D), row i - 1 for item i.
        items: (n,) int64, 1 ... I.
        k: K, at most I - 1; fewer items have fewer neighbours.

    Returns:
        (n, K) int64, 1 ... I.
    """
    unit = F.normalize(vectors, dim=-1)
    cosines = unit[items - 1] @ unit.T  # (n, I)
    cosines.scatter_(1, items[:, None] - 1, -torch.inf)
    return cosines.topk(min(k, len(vectors) - 1)).indices + 1


def share_alike(neighbours: torch.Tensor, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The share of each item's ``neighbours`` (n, K) whose label is the ``wanted`` one, (n,).

    Args:
        neighbours: 1 ... I.
        labels: (I,) of all items.
        wanted: (n,) one for each row of ``neighbours``.
    """
    return (labels[neighbours.numpy() - 1] == wanted[:, None]).mean(axis=1)


def draw_map(vectors: torch.Tensor, seed: int = 0) -> np.ndarray:
    """A map (I, 2) of vectors (I, D) by UMAP: who is near in cosine should be near on the map. I is 16 or more."""
    from umap import UMAP  # its import and its first map take seconds: it compiles itself

    mapper = UMAP(n_neighbors=15, min_dist=0.3, n_epochs=200, metric="cosine", random_state=seed, n_jobs=1)
    return mapper.fit_transform(vectors.numpy())


class FlatMap(NamedTuple):
    """A linear map of a space, so that whatever lies in the space, item or not, has its place on it."""

    centre: torch.Tensor  # (D,)
    axes: torch.Tensor  # (D, 2), orthonormal
    share: float  # of the items' variance that the two axes show

    def place(self, vectors: torch.Tensor) -> np.ndarray:
        """Where vectors (n, D) are on the map, (n, 2)."""
        return ((vectors - self.centre) @ self.axes).detach().cpu().numpy()


def flat_map(vectors: torch.Tensor) -> FlatMap:
    """The plane in which vectors (I, D) vary most: their two principal components."""
    vectors = vectors.detach()
    centre = vectors.mean(dim=0)
    _, singular, components = torch.linalg.svd(vectors - centre, full_matrices=False)
    axes = components[:2].T  # (D, 2)
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()  # which way is up is arbitrary
    return FlatMap(centre, axes, float(singular[:2].square().sum() / singular.square().sum()))
