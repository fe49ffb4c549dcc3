"""Is each module doing anything? Gates, codes and trajectories as plain arrays, and one number for each."""

# B batch, L sequence, M max_length, D hidden, I items, U users, N experts, Z codes, S reverse steps, K top items

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score

from imecd_lite.dataset import Batch, Dataset, Split, eval_batches, read_table
from imecd_lite.errors import InputError
from imecd_lite.evaluate import ndcg, relative_gain, score_batches
from imecd_lite.model import IMECD, LossOutput, Recommender

STEP_COUNTS = (1, 2, 4, 8, 16, 32)
NUM_NEIGHBOURS = 10
BATCH_SIZE = 512


def perplexity(indices: np.ndarray) -> float:
    """exp of the entropy of how often each code is chosen: from 1 (always the same) to Z (all alike)."""
    return float(np.exp(entropy(np.bincount(indices) / len(indices))))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Natural entropy of each row of ``probabilities`` (..., n)."""
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities, dtype=np.float64))
    return -(probabilities * logs).sum(axis=-1)


@torch.no_grad()
def routing_weights(model: IMECD, modality: str) -> np.ndarray:
    """The gates of Eq. 3 or 4, (I, N)."""
    return model.route(modality).routing_weights.double().cpu().numpy()


def gate_entropy(gates: np.ndarray) -> float:
    """Mean entropy of the gates (I, N) over log N: 1 is flat, 0 a single expert for each item."""
    return float(entropy(gates).mean() / np.log(gates.shape[1]))


def gate_usage_entropy(gates: np.ndarray) -> float:
    """Entropy of the mean gate over log N: 1 when all experts are used alike."""
    return float(entropy(gates.mean(axis=0)) / np.log(gates.shape[1]))


@torch.no_grad()
def chosen_codes(model: IMECD, dataset: Dataset, split: Split, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Which code each user's history selects, (U,), and the histories themselves, zero-padded, (U, M * D) float32."""
    table, codes, padded = model.item_embeddings()[modality], [], []
    batches = list(eval_batches(dataset, split, BATCH_SIZE))
    for batch in batches:
        sequence = F.embedding(batch.item_seq.to(table.device), table)  # (B, L, D)
        codes.append(model.codebooks[modality](sequence).indices)
        padded.append(F.pad(sequence, (0, 0, model.config.max_length - sequence.shape[1], 0)).flatten(1))
    order = torch.cat([batch.users for batch in batches]).argsort()
    return torch.cat(codes).cpu()[order].numpy(), torch.cat(padded).cpu()[order].numpy()


def codebook_error(sequences: np.ndarray, codes: np.ndarray, indices: np.ndarray, inertia: float) -> float:
    """Squared distance of sequences (U, M * D) to their codes (Z, M * D), over k-means' total ``inertia``."""
    return float(np.square(sequences - codes[indices]).sum() / inertia)


@torch.no_grad()
def modality_neighbours(embeddings: torch.Tensor, neighbours: torch.Tensor) -> np.ndarray:
    """Mean cosine of each item (I, D) to its ``neighbours`` (I, K), (I,)."""
    unit = F.normalize(embeddings, dim=-1)
    return torch.einsum("id,ikd->i", unit, unit[neighbours]).div(neighbours.shape[1]).cpu().numpy()


@torch.no_grad()
def mending(model: IMECD, modality: str) -> np.ndarray:
    """How much nearer the experts bring each item to its ten nearest neighbours by ID, as a change in cosine, (I,)."""
    ids = F.normalize(model.item_embeddings()["id"][1:], dim=-1)
    neighbours = (ids @ ids.T).fill_diagonal_(-torch.inf).topk(NUM_NEIGHBOURS).indices  # (I, K)
    before, after = model.project(modality), model.route(modality).embeddings
    return modality_neighbours(after, neighbours) - modality_neighbours(before, neighbours)


def top_and_ranks(
    model: Recommender,
    dataset: Dataset,
    split: Split,
    seed: int = 0,
    num_inference_steps: int | None = None,
    k: int = 10,
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's first K items, (U, K), and the rank of the true one, (U,): both for the price of one.

    Args:
        k: K; where there are fewer items, all of them.
        num_inference_steps: of models that take reverse steps; None for all.
    """
    k = min(k, dataset.num_items)
    top, ranks = np.zeros((len(split.users), k), dtype=np.int64), np.zeros(len(split.users), dtype=np.int64)
    steps = {} if num_inference_steps is None else {"num_inference_steps": num_inference_steps}
    for batch, scores in score_batches(model, dataset, split, BATCH_SIZE, mask_seen=False, seed=seed, **steps):
        users = batch.users.cpu()
        top[users] = scores.topk(k).indices.cpu()
        ranks[users] = (scores >= scores.gather(1, batch.pos_items[:, None])).sum(dim=1).cpu()
    return top, ranks


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Mean overlap of two lists of items a user, (U, K) each: the items in both over the items in either."""
    shared = (first[:, :, None] == second[:, None, :]).sum(axis=(1, 2))
    return float((shared / (2 * first.shape[1] - shared)).mean())


def read_truth(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """What was planted, rows in the dataset's order: "items" and "users"; empty where there is no ``truth`` folder.

    Raises:
        InputError: an item or a user of the dataset has no row in it.
    """
    truth = {}
    for name, ids in (("item", dataset.item_ids), ("user", dataset.user_ids)):
        path = Path(dataset.path) / f"truth/{name}s.csv"
        if path.exists():
            rows = read_table(path, (f"{name}_id",)).set_index(f"{name}_id")
            if not (known := np.isin(ids, rows.index)).all():
                stranger = ids[int(np.argmin(known))]
                raise InputError(f"{path} has no row for the {name} {stranger!r}; add it, or delete {path.parent}.")
            truth[f"{name}s"] = rows.loc[ids]
    return truth


def kmeans(sequences: np.ndarray, num_codes: int, seed: int = 0, num_starts: int = 3) -> KMeans:
    """K-means of sequences (U, M * D), the best of ``num_starts`` runs."""
    used = np.abs(sequences).sum(axis=0) > 0  # the padding is zero for all
    return KMeans(num_codes, n_init=num_starts, random_state=seed).fit(sequences[:, used])


def diagnose(model: IMECD, dataset: Dataset, split: Split, step_counts: Sequence[int] = STEP_COUNTS) -> dict:
    """Every number of the module, by its name.

    Left out is what needs a planted truth where there is none, and what compares with 0: the entropy of gates over a
    single expert, a distance over k-means' own where every history can have a code to itself.

    Raises:
        InputError: the model is no IMECD, or users or items are too few.
    """
    if not isinstance(model, IMECD):
        raise InputError(f"The model is a {type(model).__name__}; only an IMECD has modules to diagnose.")
    model.eval()
    codes = model.config.codebook_size if model.codebooks else 1
    if dataset.num_users < codes or dataset.num_items <= NUM_NEIGHBOURS:
        raise InputError(
            f"{dataset.path} has {dataset.num_users} users and {dataset.num_items} items; to diagnose this model takes "
            f"{codes} and {NUM_NEIGHBOURS + 1} at least."
        )
    truth, report = read_truth(dataset), {}

    def note(name: str, modality: str, value: float) -> None:
        report.setdefault(name, {})[modality] = value

    for modality, codebook in model.codebooks.items():
        indices, sequences = chosen_codes(model, dataset, split, modality)
        fitted = kmeans(sequences, codebook.codebook_size)
        codes = codebook.codes.flatten(1).cpu().numpy()
        note("codebook_perplexity", modality, perplexity(indices))
        note("codebook_perplexity_kmeans", modality, perplexity(fitted.labels_))
        note("codebook_size", modality, codebook.codebook_size)
        if fitted.inertia_:
            note("codebook_error", modality, codebook_error(sequences, codes, indices, fitted.inertia_))
        if modality == "id" and "users" in truth:
            journeys = truth["users"]["journey"]
            report["code_journey_nmi"] = float(normalized_mutual_info_score(journeys, indices))
            report["code_journey_nmi_kmeans"] = float(normalized_mutual_info_score(journeys, fitted.labels_))
    for modality in model.experts:
        gates = routing_weights(model, modality)
        if model.config.num_experts > 1:
            note("gate_entropy", modality, gate_entropy(gates))
            note("gate_usage_entropy", modality, gate_usage_entropy(gates))
        if "items" in truth:
            types, misleading = truth["items"]["type"], truth["items"]["misleading"]
            note("gate_type_nmi", modality, float(normalized_mutual_info_score(types, gates.argmax(axis=1))))
            score = mending(model, modality)
            report[f"misleading_{modality}_auc"] = float(roc_auc_score(misleading == modality, score))
    counts = sorted({min(count, model.config.num_train_timesteps) for count in step_counts})
    runs = {count: top_and_ranks(model, dataset, split, num_inference_steps=count) for count in counts}
    report["steps_top10_overlap"] = jaccard(runs[counts[0]][0], runs[counts[-1]][0])
    other, _ = top_and_ranks(model, dataset, split, seed=1)
    report["draws_top10_overlap"] = jaccard(runs[counts[-1]][0], other)
    report["ndcg@10_by_steps"] = {str(count): float(ndcg(ranks, 10).mean()) for count, (_, ranks) in runs.items()}
    report["steps_gain"] = relative_gain(runs[counts[-1]][1], runs[counts[0]][1])
    return report


def distances_to_codes(model: IMECD, modality: str, indices: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """How far each history is from the code it chose, (U,); ``indices`` and ``sequences`` from ``chosen_codes``."""
    codes = model.codebooks[modality].codes.flatten(1).cpu().numpy()  # (Z, M * D)
    return np.array([np.linalg.norm(row - codes[code]) for row, code in zip(sequences, indices, strict=True)])


def code_contents(indices: np.ndarray, labels: np.ndarray, num_codes: int) -> pd.DataFrame:
    """Of the users of each code, the share with each label: rows labels, the commonest first, columns codes 1 ... Z.

    Args:
        indices: (U,) codes 0 ... Z - 1.
        labels: (U,) such as the planted journeys.
        num_codes: Z; the column of a code that nobody chose is all 0.
    """
    names = pd.Series(labels).value_counts().index
    counts = pd.crosstab(labels, indices + 1).reindex(index=names, columns=range(1, num_codes + 1), fill_value=0)
    return (counts / counts.sum().clip(lower=1)).rename_axis(index=None, columns=None)


def mean_cosine(vectors: torch.Tensor) -> float:
    """Mean cosine of two different rows of vectors (B, D), two at least: 1 when all point one way, 0 when all ways."""
    unit = F.normalize(vectors.detach().double(), dim=-1)
    return float((unit.sum(dim=0).square().sum() - len(unit)) / (len(unit) * (len(unit) - 1)))


@torch.no_grad()
def heard(model: IMECD, batch: Batch, modality: str, timesteps: Sequence[int], seed: int = 0) -> np.ndarray:
    """How much Eq. 13 makes of x_t: the change in x-hat_0, as a share of its length, when x_t comes from another item.

    Args:
        model: in eval mode.
        batch: histories, and the items whose representations are noised; two at least, each is another's other item.
        timesteps: t, 1 ... T.
        seed: of the noise, which is the same for both items.

    Returns:
        Means over the batch, one for each of ``timesteps``.
    """
    table = model.item_embeddings()[modality]
    sequence, _ = model.quantise(modality, F.embedding(batch.item_seq, table))
    predict = model.denoisers[modality].given(sequence, batch.item_seq > 0)
    x_0 = table[batch.pos_items]  # (B, D)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(seed), dtype=x_0.dtype).to(x_0.device)
    changes = []
    for t in timesteps:
        steps = torch.full((len(x_0),), t, device=x_0.device)
        own, other = (
            predict(model.schedule.add_noise(original, noise, steps), steps) for original in (x_0, x_0.roll(1, dims=0))
        )
        changes.append(float(((own - other).norm(dim=1) / own.norm(dim=1)).mean()))
    return np.array(changes)


MODULES = {
    "item_embedding": "ID embeddings",
    "projections": "projections",
    "gate": "gates",
    "experts": "experts",
    "codebooks": "code selectors",
    "denoisers": "denoisers",
    "repeat_bias": "repeat bias",
}
"""What the parts of IMECD that are trained are called, by the name of their parameters."""


def parameters_by_module(model: Recommender) -> dict[str, list[torch.nn.Parameter]]:
    """The trained parameters of each of ``MODULES`` that a model has; other models' go by their own names."""
    found: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = "gate" if ".gate." in name else name.split(".")[0]
        if parameter.requires_grad:
            found.setdefault(MODULES.get(part, part), []).append(parameter)
    return {name: found.pop(name) for name in MODULES.values() if name in found} | found


def norm(tensors: Sequence[torch.Tensor | None]) -> float:
    """The Euclidean norm of tensors taken together; None counts as zeros."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors if tensor is not None))


def step_numbers(model: Recommender, output: LossOutput) -> dict[str, float]:
    """What a training step says of itself, to be called while its gradients are there: ``train``'s ``on_step``.

    Returns:
        "loss" and its terms, "<modality>/code_perplexity" of the batch, "gradient/<module>" the gradient's norm.
    """
    numbers = {"loss": output.total.item()} | {name: value.item() for name, value in output.terms.items()}
    for name, chunks in output.chosen.items():
        if chunks:
            numbers[f"{name}/code_perplexity"] = perplexity(torch.cat([indices for _, indices in chunks]).cpu().numpy())
    for name, parameters in parameters_by_module(model).items():
        numbers[f"gradient/{name}"] = norm([parameter.grad for parameter in parameters])
    return numbers


def term_gradients(model: IMECD, batch: Batch, seed: int = 0) -> pd.DataFrame:
    """Who teaches whom: the norm of the gradient that each term of Eq. 22 alone sends to each module.

    Args:
        model: its parameters and their gradients stay as they are.
        batch: on the model's device.
        seed: of what the loss draws.

    Returns:
        A row for each term, summed over the modalities and without its weight, a column for each module; 0 where a
        term does not reach a module at all.
    """
    modules = parameters_by_module(model)
    output = model.loss(batch, torch.Generator(batch.pos_items.device).manual_seed(seed))
    terms: dict[str, torch.Tensor] = {}
    for name, value in output.parts.items():
        term = name.split("/")[1]
        terms[term] = terms.get(term, 0) + value
    flat = [parameter for parameters in modules.values() for parameter in parameters]
    rows = {}
    for term, value in terms.items():
        if not value.requires_grad:  # the gates' loss before there are groups
            rows[term] = dict.fromkeys(modules, 0.0)
            continue
        gradients = iter(torch.autograd.grad(value, flat, retain_graph=True, allow_unused=True))
        rows[term] = {name: norm([next(gradients) for _ in parameters]) for name, parameters in modules.items()}
    return pd.DataFrame(rows).T
