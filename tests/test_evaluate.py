"""Ranks and metrics: against torchmetrics, by hand, and against what a metric must not do."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import tiny
import torch
from made_data import write_ids
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from imecd_lite.dataset import Split, load_dataset
from imecd_lite.errors import InputError
from imecd_lite.evaluate import (
    bootstrap_interval,
    compare_runs,
    coverage,
    list_overlap,
    load_ranks,
    metrics,
    ndcg,
    paired_bootstrap,
    popularity_percentiles,
    refuse_no_ranks,
    relative_gain,
    sampled_ranks,
    save_ranks,
    target_ranks,
    top_items,
    user_values,
)
from imecd_lite.model import Recommender


class Scorer(Recommender):
    """Scores from a function of (item_seq, user_keys)."""

    def __init__(self, function, num_items):
        super().__init__()
        self.function = function
        self.register_buffer("table", torch.zeros(num_items + 1))

    def full_sort_predict(self, item_seq, user_keys, seed=0):
        scores = self.function(item_seq, user_keys).clone()
        scores[:, 0] = -torch.inf
        return scores


def by_user(num_items, seed=0):
    def function(item_seq, user_keys):
        generators = (torch.Generator().manual_seed(int(key) + seed) for key in user_keys)
        return torch.stack([torch.randn(num_items + 1, generator=g) for g in generators])

    return function


@pytest.fixture
def dataset(tmp_path):
    return load_dataset(write_ids(tmp_path, num_users=40, num_items=30))


def test_metrics_agree_with_torchmetrics(dataset):
    split, model = dataset.split("test"), Scorer(by_user(dataset.num_items), dataset.num_items)
    found = metrics(target_ranks(model, dataset, split))
    scores = model.full_sort_predict(None, torch.from_numpy(dataset.user_keys))[:, 1:]
    target = torch.zeros_like(scores, dtype=torch.bool)
    target[torch.arange(dataset.num_users), torch.from_numpy(split.targets) - 1] = True
    users = torch.arange(dataset.num_users)[:, None].expand_as(scores)
    for k in (5, 10, 20):
        for name, oracle in (("hit", RetrievalHitRate(top_k=k)), ("ndcg", RetrievalNormalizedDCG(top_k=k))):
            expected = oracle(scores.flatten(), target.flatten(), indexes=users.flatten())
            assert found[f"{name}@{k}"] == pytest.approx(float(expected), abs=1e-6)
    assert found["num_users"] == 40


def test_ties_count_against_the_true_item(dataset):
    split = dataset.split("test")

    def three_better_two_equal(item_seq, user_keys):
        scores = torch.zeros(len(item_seq), dataset.num_items + 1)
        rows = [dataset.user_keys.tolist().index(int(key)) for key in user_keys]
        for row, user in enumerate(rows):
            others = [item for item in range(1, dataset.num_items + 1) if item != split.targets[user]]
            scores[row, others[:3]], scores[row, others[3:5]], scores[row, split.targets[user]] = 2.0, 1.0, 1.0
        return scores

    assert set(target_ranks(Scorer(three_better_two_equal, dataset.num_items), dataset, split)) == {6}


def test_a_constant_scorer_gets_no_hits(dataset):
    model = Scorer(lambda item_seq, keys: torch.ones(len(item_seq), dataset.num_items + 1), dataset.num_items)
    ranks = target_ranks(model, dataset, dataset.split("test"))
    assert set(ranks) == {dataset.num_items}
    assert metrics(ranks)["hit@20"] == 0


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_ranks_do_not_depend_on_the_batch_size(dataset, batch_size):
    model, split = Scorer(by_user(dataset.num_items), dataset.num_items), dataset.split("valid")
    assert (target_ranks(model, dataset, split, batch_size) == target_ranks(model, dataset, split)).all()


def test_seen_items_are_masked_but_the_true_one_never(dataset):
    split = dataset.split("test")

    def likes_the_past(item_seq, user_keys):
        scores = torch.rand(len(item_seq), dataset.num_items + 1, generator=torch.Generator().manual_seed(0))
        return scores.scatter(1, item_seq, 5.0)

    model = Scorer(likes_the_past, dataset.num_items)
    open_ranks = target_ranks(model, dataset, split)
    masked = target_ranks(model, dataset, split, mask_seen=True)
    assert (open_ranks - masked == [len(set(history)) for history in split.histories]).all()
    top = top_items(model, dataset, split, k=3, mask_seen=True)
    roomy = [user for user in split.users if len(split.histories[user]) <= dataset.num_items - 3]
    assert roomy
    assert not any(set(top[user]) & set(split.histories[user].tolist()) for user in roomy)
    every = top_items(model, dataset, split, k=dataset.num_items, mask_seen=True)
    for user, history in enumerate(split.histories):
        left = set(range(1, dataset.num_items + 1)) - set(history.tolist()) | {split.targets[user]}
        assert set(every[user, : len(left)]) == left and not every[user, len(left) :].any(), "0 where nothing is left"
    assert coverage(np.zeros_like(every), dataset.num_items) == list_overlap(np.zeros_like(every)) == 0
    repeated = dataset.split("test")
    repeated.targets[:] = [history[0] for history in repeated.histories]  # bought again
    assert (target_ranks(model, dataset, repeated, mask_seen=True) == 1).all()


def test_what_was_seen_before_the_latest_items_is_masked_too(tmp_path):
    dataset = load_dataset(write_ids(tmp_path, num_items=30), max_length=2)
    split, model = dataset.split("test"), Scorer(by_user(30), 30)
    ranks = target_ranks(model, dataset, split, mask_seen=True)
    assert (ranks <= 30 - np.array([len(history) for history in split.histories])).all()


def test_a_split_of_other_users_is_refused(dataset):
    split = dataset.split("test")
    for rows in (np.arange(20, 25), np.arange(39, -1, -1)):
        others = Split(split.users[rows], [split.histories[row] for row in rows], split.targets[rows])
        with pytest.raises(ValueError, match=r"users of a split must be 0, 1, 2 and so on; .* with some_users"):
            target_ranks(Scorer(by_user(30), 30), dataset, others)


def test_scores_that_are_not_numbers_or_of_another_shape_are_refused(dataset):
    split = dataset.split("test")
    bad = Scorer(lambda item_seq, keys: torch.full((len(item_seq), dataset.num_items + 1), torch.nan), 3)
    with pytest.raises(ValueError, match="NaN"):
        target_ranks(bad, dataset, split)
    with pytest.raises(ValueError, match=r"scores must be \(40, 31\), got \(40, 5\)"):
        target_ranks(Scorer(lambda item_seq, keys: torch.zeros(len(item_seq), 5), 3), dataset, split)


def test_the_model_is_scored_in_eval_mode_and_left_as_it_was(dataset):
    modes = []
    model = Scorer(lambda item_seq, keys: torch.rand(len(item_seq), dataset.num_items + 1), dataset.num_items)
    model.register_buffer("seen", torch.zeros(1))
    function = model.function
    model.function = lambda *arguments: (modes.append(model.training), function(*arguments))[1]
    model.train()
    target_ranks(model, dataset, dataset.split("test"))
    assert modes == [False]
    assert model.training


def test_top_items_are_the_best_in_order(dataset):
    model, split = Scorer(by_user(dataset.num_items), dataset.num_items), dataset.split("test")
    top = top_items(model, dataset, split, k=4)
    scores = model.full_sort_predict(None, torch.from_numpy(dataset.user_keys))
    assert (top == scores.argsort(dim=1, descending=True)[:, :4].numpy()).all()
    assert coverage(top, dataset.num_items) == len(set(top.flatten())) / dataset.num_items


def test_metrics_by_hand():
    found = metrics(np.array([1, 3, 11]), ks=(1, 10))
    assert found == {
        "hit@1": pytest.approx(1 / 3),
        "hit@10": pytest.approx(2 / 3),
        "ndcg@1": pytest.approx(1 / 3),
        "ndcg@10": pytest.approx((1 + 0.5) / 3),  # 1 / log2(2), 1 / log2(4), 0
        "num_users": 3,
    }


@pytest.mark.parametrize("name", ["mrr@10", "hit", "hit@0", "ndcg@x"])
def test_an_unknown_metric_is_refused(name):
    with pytest.raises(ValueError, match=name):
        bootstrap_interval(np.array([1, 2]), name)


def test_bootstrap_interval_agrees_with_scipy():
    ranks = np.random.default_rng(0).integers(1, 40, size=500)
    low, high = bootstrap_interval(ranks, "hit@10", num_resamples=4000)
    oracle = scipy.stats.bootstrap(
        ((ranks <= 10).astype(float),), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.006)
    assert low < (ranks <= 10).mean() < high
    assert bootstrap_interval(ranks, "hit@10") == bootstrap_interval(ranks, "hit@10")


def test_a_paired_interval_is_narrow_where_systems_agree():
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 40, size=400)
    better = np.where(rng.random(400) < 0.1, 1, ranks)
    low, high = paired_bootstrap(better, ranks, "hit@10")
    assert 0 < low < high
    widths = np.ptp(bootstrap_interval(better, "hit@10")) + np.ptp(bootstrap_interval(ranks, "hit@10"))
    assert high - low < widths / 2
    assert paired_bootstrap(ranks, ranks, "ndcg@10") == (0, 0)
    with pytest.raises(ValueError, match="same users, got 400 and 3"):
        paired_bootstrap(ranks, ranks[:3], "hit@10")


def test_a_relative_gain_has_the_interval_of_the_quotient_over_the_same_drawn_users():
    rng = np.random.default_rng(0)
    ranks, other = rng.integers(1, 30, size=(2, 300)), rng.integers(1, 60, size=300)
    gain = relative_gain(ranks, other)
    first, second = ndcg(ranks, 10).mean(axis=0), ndcg(other, 10)
    oracle = scipy.stats.bootstrap(
        (first, second), lambda a, b, axis: a.mean(axis) / b.mean(axis) - 1, paired=True, n_resamples=4000,
        method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    assert (gain["low"], gain["high"]) == pytest.approx((oracle.low, oracle.high), rel=0.06)
    assert gain["mean"] == pytest.approx(first.mean() / second.mean() - 1)
    assert gain["low"] < gain["mean"] < gain["high"]
    low, high = paired_bootstrap(ranks, other, "ndcg@10")
    assert gain["high"] - gain["low"] > 1.1 * (high - low) / second.mean()  # the other's own mean is uncertain, too


def test_a_gain_over_one_who_seldom_hits_is_finite_and_over_nobody_none():
    ranks, rare = np.array([1, 1, 20, 3]), np.array([99, 99, 99, 3])
    gain = relative_gain(ranks, rare)  # many draws lack its only hit
    assert np.isfinite([*gain.values()]).all() and gain["mean"] == pytest.approx((1 + 1 + 0.5) / 0.5 - 1)
    assert set(relative_gain(ranks, np.full(4, 99)).values()) == {0.0}
    with pytest.raises(ValueError, match="ndcg@10 of the second system is 0"):
        paired_bootstrap(ranks, np.full(4, 99), "ndcg@10", relative=True)


def test_ranks_are_saved_by_user(dataset, tmp_path):
    split = dataset.split("test")
    save_ranks(tmp_path / "new/ranks.csv", dataset, split, np.arange(1, 41))
    lines = (tmp_path / "new/ranks.csv").read_text().splitlines()
    assert lines[0] == "user_id,item_id,rank"
    assert lines[1] == f"U000,{dataset.item_ids[split.targets[0] - 1]},1"
    assert len(lines) == 41


def test_ranks_are_written_over_ranks_alone(dataset, tmp_path):
    file, split = tmp_path / "ranks.csv", dataset.split("test")
    refuse_no_ranks(file)  # not there yet
    save_ranks(file, dataset, split, np.arange(1, 41))
    refuse_no_ranks(file)
    with pytest.raises(InputError, match="is a folder; name a file to write ranks to"):
        refuse_no_ranks(tmp_path)
    for content in (b"", b"user_id,item_id,timestamp\na,b,1\n", b"\xff\0"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"ranks.csv is there, and holds no ranks; name another file"):
            refuse_no_ranks(file)


def made_run(folder: Path, ranks, users=None) -> Path:
    rows = [f"{user},item,{rank}" for user, rank in zip(users or range(len(ranks)), ranks, strict=True)]
    folder.mkdir(parents=True)
    (folder / "ranks_test.csv").write_text("\n".join(["user_id,item_id,rank", *rows]) + "\n")
    return folder


def test_two_systems_are_compared_by_the_means_over_their_seeds(tmp_path):
    runs = [made_run(tmp_path / "a0", [1, 20, 20, 1]), made_run(tmp_path / "a1", [1, 1, 20, 20], users=[0, 3, 2, 1])]
    others = [made_run(tmp_path / "b0", [1, 20, 20, 20])]
    result = compare_runs(runs, others, metric="hit@10")
    assert (result["mean"], result["least"], result["greatest"]) == (0.5, 0.5, 0.5)
    assert (result["other_mean"], result["difference"], result["relative"]) == (0.25, 0.25, 1.0)
    assert result["difference_interval"] == paired_bootstrap(
        np.array([[1, 20, 20, 1], [1, 20, 20, 1]]), np.array([1, 20, 20, 20]), "hit@10"
    )
    gain = relative_gain(np.array([[1, 20, 20, 1], [1, 20, 20, 1]]), np.array([1, 20, 20, 20]), "hit@10")
    assert result["relative_interval"] == (gain["low"], gain["high"])


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    run, other = made_run(tmp_path / "a", [1, 2]), made_run(tmp_path / "b", [1, 2], users=[0, 7])
    with pytest.raises(InputError, match="b ranks other users than"):
        compare_runs([run], [other])
    with pytest.raises(InputError, match=r"ranks_valid.csv is not there"):
        compare_runs([run], [run], split="valid")
    (run / "config.json").write_text("{}")
    with pytest.raises(InputError, match="a holds a run that has not ended; end it with train --resume"):
        compare_runs([run], [run], split="valid")
    (other / "ranks_test.csv").write_text("user_id,item_id,place\n1,item,2\n")
    with pytest.raises(InputError, match=r"ranks_test.csv must have one column 'rank'"):
        compare_runs([run], [other])
    for content, complaint in {
        "": "ranks_test.csv holds no ranks",
        "0,item,1\n1,item,0\n": "line 3: rank '0' is not a whole number from 1",
        "0,item,1.9\n1,item,2\n": "line 2: rank '1.9' is not a whole number from 1",
        "0,item,1\n0,item,2\n": "line 3: user_id '0' is there twice",
        "1,item,1\n0,other,2\n": "b ranks 'other' for user '0', .*a 'item'; compare runs on the same data",
    }.items():
        (other / "ranks_test.csv").write_text("user_id,item_id,rank\n" + content)
        with pytest.raises(InputError, match=complaint):
            compare_runs([run], [other])
    nobody = made_run(tmp_path / "c", [50, 60])
    with pytest.raises(InputError, match=r"ndcg@10 of .*c is 0, nothing compares to that"):
        compare_runs([run], [nobody])


def test_users_may_be_called_what_others_write_for_nothing(tmp_path):
    users = ["NA", "n/a", "null", "7"]
    run = made_run(tmp_path / "a", [1, 2, 3, 4], users)
    assert load_ranks(run / "ranks_test.csv").to_dict() == dict(zip(users, [1, 2, 3, 4], strict=True))
    other = made_run(tmp_path / "b", [4, 3, 2, 1], users[::-1])
    assert compare_runs([run], [other])["difference"] == 0


def test_what_is_no_rank_and_no_batch_is_refused():
    for ranks in ([], [3, 0], [-1]):
        with pytest.raises(ValueError, match="ranks must be some, from 1"):
            metrics(np.array(ranks))
    with pytest.raises(ValueError, match=r"metric must be hit@K or ndcg@K, got 'hit@²'"):
        user_values([1], "hit@²")
    for confidence in (0, 1, 95, math.nan):
        with pytest.raises(ValueError, match=f"confidence must be above 0 and below 1, got {confidence}"):
            bootstrap_interval(np.array([1, 2]), "hit@1", confidence)
    with pytest.raises(ValueError, match="num_resamples must be at least 1, got 0"):
        bootstrap_interval(np.array([1, 2]), "hit@1", num_resamples=0)
    dataset, model = tiny.tiny_dataset(), tiny.tiny_model()
    with pytest.raises(ValueError, match="batch_size must be at least 1, got -1"):
        target_ranks(model, dataset, dataset.split("test"), batch_size=-1)


def test_of_a_small_catalogue_all_is_recommended():
    dataset, model = tiny.tiny_dataset(), tiny.tiny_model()
    top = top_items(model, dataset, dataset.split("test"), k=tiny.NUM_ITEMS + 5)
    assert np.array_equal(np.sort(top, axis=1), np.tile(np.arange(1, tiny.NUM_ITEMS + 1), (dataset.num_users, 1)))


def test_the_interval_of_seeds_is_that_of_each_users_mean():
    ranks = np.random.default_rng(0).integers(1, 40, size=(3, 200))
    low, high = paired_bootstrap(ranks, ranks[:2], "ndcg@10", num_resamples=300)
    difference = ndcg(ranks, 10).mean(axis=0) - ndcg(ranks[:2], 10).mean(axis=0)
    rng = np.random.default_rng(0)
    draws = [difference[rng.integers(200, size=200)].mean() for _ in range(300)]
    np.testing.assert_allclose((low, high), np.quantile(draws, (0.025, 0.975)))


def test_two_users_share_of_their_lists_is_that_of_all_pairs():
    top = np.stack([1 + np.random.default_rng(user).permutation(12)[:4] for user in range(9)])
    shares = [len(set(a) & set(b)) / 4 for a, b in itertools.combinations(top.tolist(), 2)]
    assert list_overlap(top) == pytest.approx(np.mean(shares))
    assert list_overlap(top[:1]) == 0 and list_overlap(np.ones((5, 1), dtype=int)) == 1


def test_popularity_percentiles_rank_the_catalogue_with_ties_by_half():
    shares = popularity_percentiles(np.array([0, 7, 2, 2, 9]))
    assert np.isnan(shares[0]) and shares[1:].tolist() == [0.625, 0.25, 0.25, 0.875]
    assert shares[1:].mean() == 0.5


def test_sampled_ranks_are_those_of_drawing_items():
    num_items, num_negatives, users = 40, 9, 4000
    rank = 8
    found = sampled_ranks(np.full(users, rank), num_items, num_negatives)
    rng = np.random.default_rng(1)
    others = np.r_[np.ones(rank - 1), np.zeros(num_items - rank)]  # who stands before the true item
    drawn = np.array([1 + rng.permutation(others)[:num_negatives].sum() for _ in range(users)])
    for place in range(1, 7):
        assert (found == place).mean() == pytest.approx((drawn == place).mean(), abs=0.03), place
    assert sampled_ranks(np.array([1]), 40, 9).tolist() == [1], "nobody stands before the first"


def test_sampling_everything_or_nothing_changes_nothing_or_everything():
    ranks = np.arange(1, 41)
    assert sampled_ranks(ranks, 40, 39).tolist() == ranks.tolist()
    assert sampled_ranks(ranks, 40, 0).tolist() == [1] * 40
    assert sampled_ranks(ranks, 40, 9, seed=3).tolist() == sampled_ranks(ranks, 40, 9, seed=3).tolist()
    for wrong in (-1, 40):
        with pytest.raises(ValueError, match=f"num_negatives must be from 0 to 39, got {wrong}"):
            sampled_ranks(ranks, 40, wrong)
