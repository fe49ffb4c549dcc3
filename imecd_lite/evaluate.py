"""Full-catalogue ranking: target ranks -> H@K, N@K (section IV-A2), intervals over users, coverage and overlap."""

# B batch, I items, U users, K cut-off, R resamples

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from imecd_lite.dataset import Batch, Dataset, Split, eval_batches, read_table, refuse_lines
from imecd_lite.errors import InputError, quote
from imecd_lite.files import write_atomically
from imecd_lite.model import MAX_LOGITS, Recommender
from imecd_lite.processes import num_processes, process_index, total

BATCH_SIZE = 512


def target_ranks(
    model: Recommender,
    dataset: Dataset,
    split: Split,
    batch_size: int = BATCH_SIZE,
    mask_seen: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """The rank of each user's true item among the whole catalogue, (U,) from 1.

    Every item that scores as high as the true one or higher stands before it, so a constant scorer gets no hits.

    Args:
        mask_seen: leave out the items of a user's history; never the true item.
        seed: of the reverse diffusion. A user's scores depend on it and on the user, not on the batch.
    """
    ranks = torch.zeros(len(split.users), dtype=torch.int64, device=device_of(model))
    for batch, scores in score_batches(model, dataset, split, batch_size, mask_seen, seed, progress):
        target = scores.gather(1, batch.pos_items[:, None])  # (B, 1)
        ranks[batch.users] = (scores >= target).sum(dim=1)
    return total(ranks).numpy(force=True)


def top_items(
    model: Recommender,
    dataset: Dataset,
    split: Split,
    k: int = 10,
    batch_size: int = BATCH_SIZE,
    mask_seen: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """The items recommended to each user, best first, (U, K), all of them where there are fewer than ``k``.

    As in ``target_ranks``, ``mask_seen`` never leaves out the true item. Where it leaves a user fewer, item 0, the
    padding, fills up.
    """
    k = min(k, dataset.num_items)
    top = torch.zeros(len(split.users), k, dtype=torch.int64, device=device_of(model))
    for batch, scores in score_batches(model, dataset, split, batch_size, mask_seen, seed):
        best = scores.topk(k)
        top[batch.users] = best.indices.where(best.values > -torch.inf, 0)
    return total(top).numpy(force=True)


def refuse_nan(scores: torch.Tensor) -> None:
    """Raise ``InputError`` where scores are not numbers."""
    if scores.isnan().any():
        raise InputError(
            "The scores hold NaN: the model has diverged; train it with a lower learning_rate, or with other settings "
            "nearer their defaults."
        )


def device_of(model: Recommender) -> torch.device:
    """Where the model is."""
    return next(iter(model.state_dict().values())).device


@torch.inference_mode()
def score_batches(
    model: Recommender,
    dataset: Dataset,
    split: Split,
    batch_size: int,
    mask_seen: bool,
    seed: int,
    progress: bool = False,
    **options: object,
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Batches of a split with the model's scores (B, I + 1), the model in eval mode, one process's share.

    ``options`` are the model's own, as ``num_inference_steps``. The split is one of the dataset's, or the first users
    of one; for others, ``some_users`` makes a dataset of them.
    """
    if not np.array_equal(split.users, np.arange(len(split.users))):
        raise ValueError("the users of a split must be 0, 1, 2 and so on; make a dataset of others with some_users")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    training, device = model.training, device_of(model)
    batch_size = min(batch_size, max(MAX_LOGITS // dataset.num_items, 1))
    model.eval()
    try:
        batches = itertools.islice(eval_batches(dataset, split, batch_size), process_index(), None, num_processes())
        count, tables = -(-len(split.users) // (batch_size * num_processes())), model.item_embeddings()
        for batch in tqdm(batches, desc="scoring", unit="batch", total=count, leave=False, disable=not progress):
            batch = batch.to(device)
            scores = model.predict(batch, seed, tables, **options)
            if scores.shape != (len(batch.users), dataset.num_items + 1):
                raise ValueError(
                    f"scores must be ({len(batch.users)}, {dataset.num_items + 1}), got {tuple(scores.shape)}"
                )
            refuse_nan(scores)
            if mask_seen:
                for row, user, target in zip(scores, batch.users.tolist(), batch.pos_items.tolist(), strict=True):
                    true_score = row[target].clone()
                    row[split.histories[user]] = -torch.inf
                    row[target] = true_score
            yield batch, scores
    finally:
        model.train(training)


def hit(ranks: np.ndarray, k: int) -> np.ndarray:
    """H@K of each user, (U,): 1 where the true item is among the first K."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """N@K of each user, (U,): 1 / log2(rank + 1) where the true item is among the first K, else 0."""
    return hit(ranks, k) / np.log2(ranks + 1)


def user_values(ranks: np.ndarray, metric: str) -> np.ndarray:
    """A metric such as "ndcg@10" for each user, (U,)."""
    name, _, k = metric.partition("@")
    if name not in ("hit", "ndcg") or not k.isdecimal() or int(k) < 1:
        raise ValueError(f"metric must be hit@K or ndcg@K, got {metric!r}")
    ranks = np.asarray(ranks)
    if not ranks.size or ranks.min() < 1:
        raise ValueError(f"ranks must be some, from 1, got {ranks.min() if ranks.size else 'none'}")
    return {"hit": hit, "ndcg": ndcg}[name](ranks, int(k))


def metrics(ranks: np.ndarray, ks: tuple[int, ...] = (5, 10, 20)) -> dict[str, float]:
    """Means over users: hit@K and ndcg@K for each K, and num_users."""
    names = [f"{name}@{k}" for name in ("hit", "ndcg") for k in ks]
    return {name: float(user_values(ranks, name).mean()) for name in names} | {"num_users": len(ranks)}


def resampled_means(values: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """(R,) means of ``values`` (U,) over users drawn with replacement; those of (K, U), over the same users, (K, R)."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    rng, users = np.random.default_rng(seed), values.shape[-1]
    draws = (rng.integers(users, size=users) for _ in range(num_resamples))
    return np.stack([values[..., draw].mean(axis=-1) for draw in draws], axis=-1)


def middle(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Between which two lies the middle share ``confidence`` of the values."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)


def bootstrap_interval(
    ranks: np.ndarray, metric: str, confidence: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval over users of a metric such as "ndcg@10".

    Args:
        ranks: (U,), or (S, U) with a row for each of S seeds: each user counts with the mean over the seeds.
    """
    values = user_values(np.atleast_2d(ranks), metric).mean(axis=0)  # (U,)
    return middle(resampled_means(values, num_resamples, seed), confidence)


def paired_bootstrap(
    ranks: np.ndarray,
    other_ranks: np.ndarray,
    metric: str,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    relative: bool = False,
) -> tuple[float, float]:
    """Interval of the difference in a metric between two systems (first minus second) on the same users.

    Args:
        ranks, other_ranks: (U,), or (S, U) with a row for each of S seeds, S not the same for both: users are
            drawn, and each counts with the mean over the seeds.
        relative: the difference as a share of the second's metric, on the same drawn users; draws of users that the
            second never hits have none, and are left out.
    """
    first, second = (user_values(np.atleast_2d(table), metric).mean(axis=0) for table in (ranks, other_ranks))  # (U,)
    if len(first) != len(second):
        raise ValueError(f"both systems must rank the same users, got {len(first)} and {len(second)}")
    means, other_means = resampled_means(np.stack([first, second]), num_resamples, seed)  # (R,)
    if not relative:
        return middle(means - other_means, confidence)
    if not second.any():
        raise ValueError(f"{metric} of the second system is 0, and nothing is a share of that")
    some = other_means > 0
    return middle(means[some] / other_means[some] - 1, confidence)


def relative_gain(ranks: np.ndarray, other_ranks: np.ndarray, metric: str = "ndcg@10") -> dict[str, float]:
    """By what share a metric with ``ranks``, (U,) or (S, U), exceeds that with ``other_ranks``: mean, low and high.

    Low and high are a paired 95% interval over users. All are 0 where the others never hit.
    """
    base = user_values(other_ranks, metric).mean()
    if not base:
        return dict.fromkeys(("mean", "low", "high"), 0.0)
    low, high = paired_bootstrap(ranks, other_ranks, metric, relative=True)
    return {"mean": float(user_values(ranks, metric).mean() / base - 1), "low": low, "high": high}


def measure(ranks: np.ndarray) -> dict[str, dict]:
    """What ``metrics.json`` says of a split: "metrics" and, but for num_users, their 95% "intervals" over users."""
    values = metrics(ranks)
    return {
        "metrics": values,
        "intervals": {name: bootstrap_interval(ranks, name) for name in values if name != "num_users"},
    }


def coverage(top: np.ndarray, num_items: int) -> float:
    """The share of the catalogue that is recommended to anybody; ``top`` (U, K) holds item indices, 0 for none."""
    return len(np.unique(top[top > 0])) / num_items


def popularity_percentiles(counts: np.ndarray) -> np.ndarray:
    """(I + 1,) for each item, the share of the catalogue that was bought less often, ties by half; NaN for padding.

    The mean over the catalogue is 0.5: recommending without regard to popularity.

    Args:
        counts: (I + 1,) purchases, ``dataset.train_counts``.
    """
    ranks = pd.Series(counts[1:]).rank().to_numpy()  # (I,) from 1, ties share their mean
    return np.concatenate([[np.nan], (ranks - 0.5) / len(ranks)])


def list_overlap(top: np.ndarray) -> float:
    """The share of their K items that two users, drawn at random, have in common; ``top`` (U, K), 0 for no item.

    It is 0 for one user.
    """
    users, k = top.shape
    shared = np.bincount(top[top > 0]).astype(float)  # by item: how many users it is recommended to
    return float((shared * (shared - 1)).sum() / (k * users * (users - 1))) if users > 1 else 0.0


def sampled_ranks(ranks: np.ndarray, num_items: int, num_negatives: int, seed: int = 0) -> np.ndarray:
    """The ranks (U,) that a sampled evaluation would find: the true item against random others instead of all.

    Of the I - 1 other items, rank - 1 stand before the true one; how many of these are among ``num_negatives`` drawn
    without replacement is hypergeometric, so no model is asked again.

    Args:
        ranks: (U,) among the whole catalogue.
        num_items: I.
        num_negatives: from 0 to I - 1, which changes nothing.
    """
    if not 0 <= num_negatives < num_items:
        raise ValueError(f"num_negatives must be from 0 to {num_items - 1}, got {num_negatives}")
    return 1 + np.random.default_rng(seed).hypergeometric(ranks - 1, num_items - ranks, num_negatives)


RANKS = {"valid": "ranks_valid.csv", "test": "ranks_test.csv"}
"""Where a run folder has the ranks of a split."""
RANKS_HEADER = ("user_id", "item_id", "rank")


def refuse_no_ranks(path: Path) -> None:
    """Raise ``InputError`` where ``path`` is there and is not what ``save_ranks`` writes."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file to write ranks to.")
    if path.exists() and path.read_bytes().splitlines()[:1] != [",".join(RANKS_HEADER).encode()]:
        raise InputError(f"{path} is there, and holds no ranks; name another file to write them to.")


def save_ranks(path: Path, dataset: Dataset, split: Split, ranks: np.ndarray) -> None:
    """Write user_id, item_id of the true item, and its rank as CSV, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(RANKS_HEADER)
            for user, item, rank in zip(split.users, split.targets, ranks, strict=True):
                writer.writerow([dataset.user_ids[user], dataset.item_ids[item - 1], rank])

    write_atomically(path, write)


def load_ranks(path: Path) -> pd.Series:
    """The ranks that ``save_ranks`` wrote, by user id. ``InputError`` when the file is missing or is another."""
    return load_answers(path)["rank"]


def load_answers(path: Path) -> pd.DataFrame:
    """The "item_id" and the "rank" that ``save_ranks`` wrote, by user id. Errors as ``load_ranks``."""
    if not path.exists():
        raise InputError(f"{path} is not there; is {path.parent} a folder that training wrote?")
    table = read_table(path, ("user_id", "item_id", "rank"))
    if table.empty:
        raise InputError(f"{path} holds no ranks; train or evaluate anew.")
    twice, whole = table["user_id"].duplicated(), table["rank"].str.fullmatch("[1-9][0-9]{0,9}")
    refuse_lines(path, table, "user_id", twice, "is there twice", "train or evaluate anew")
    refuse_lines(path, table, "rank", ~whole, "is not a whole number from 1", "train or evaluate anew")
    return table.set_index("user_id")[["item_id", "rank"]].astype({"rank": np.int64})


def compare_runs(
    runs: Sequence[Path], others: Sequence[Path], split: str = "test", metric: str = "ndcg@10"
) -> dict[str, object]:
    """Two systems, each the mean over its runs (its seeds), on the same users.

    Returns:
        "metric"; "mean" and "other_mean"; "least", "greatest", "other_least" and "other_greatest" of the runs;
        "difference" and "relative" (to ``other_mean``), each with its 95% interval "difference_interval" and
        "relative_interval", a paired bootstrap over users.

    Raises:
        InputError: a run has no ranks, the runs rank different users or items, or ``others`` have 0, which nothing
            compares to.
    """
    for run in [*runs, *others]:
        if not (Path(run) / RANKS[split]).exists() and (Path(run) / "config.json").exists():
            raise InputError(f"{run} holds a run that has not ended; end it with train --resume.")
    tables = [load_answers(Path(run) / RANKS[split]) for run in [*runs, *others]]
    users, items = tables[0].index, tables[0]["item_id"]
    for run, table in zip([*runs, *others], tables, strict=True):
        if set(table.index) != set(users):
            raise InputError(f"{run} ranks other users than {runs[0]}; compare runs on the same data.")
        if (other := table["item_id"].loc[users] != items).any():
            user = users[other][0]
            raise InputError(
                f"{run} ranks {quote(table['item_id'][user])} for user {quote(user)}, {runs[0]} {quote(items[user])}; "
                "compare runs on the same data."
            )
    stacked = np.stack([table["rank"].loc[users] for table in tables])  # (S, U), of both systems
    ranks, other_ranks = stacked[: len(runs)], stacked[len(runs) :]
    means, other_means = (user_values(group, metric).mean(axis=1) for group in (ranks, other_ranks))  # (S,)
    base = other_means.mean()
    if not base:
        raise InputError(f"{metric} of {others[0]} is 0, nothing compares to that; choose another metric.")
    gain = relative_gain(ranks, other_ranks, metric)
    return {
        "metric": metric,
        "mean": means.mean(),
        "least": means.min(),
        "greatest": means.max(),
        "other_mean": base,
        "other_least": other_means.min(),
        "other_greatest": other_means.max(),
        "difference": means.mean() - base,
        "difference_interval": paired_bootstrap(ranks, other_ranks, metric),
        "relative": gain["mean"],
        "relative_interval": (gain["low"], gain["high"]),
    }
