"""Diagnostics: each number on cases that a person can check, and against the model's own outputs."""

import dataclasses
import json
import math

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from imecd_lite import diagnostics
from imecd_lite.baselines import SASRec
from imecd_lite.dataset import some_users
from imecd_lite.errors import InputError
from imecd_lite.evaluate import target_ranks, top_items

DATASET = tiny.tiny_dataset()
SPLIT = DATASET.split("valid")


@pytest.fixture(scope="module")
def model():
    return tiny.tiny_model().eval()


def test_perplexity_counts_the_codes_in_use():
    assert diagnostics.perplexity(np.array([3, 3, 3])) == pytest.approx(1)
    assert diagnostics.perplexity(np.array([0, 1, 2, 3])) == pytest.approx(4)


def test_gates_are_flat_or_sharp_used_alike_or_not():
    flat, sharp = np.full((6, 3), 1 / 3), np.eye(3).repeat(2, axis=0)
    one = np.tile([1.0, 0.0, 0.0], (6, 1))
    assert [diagnostics.gate_entropy(gates) for gates in (flat, sharp, one)] == pytest.approx([1, 0, 0])
    assert [diagnostics.gate_usage_entropy(gates) for gates in (flat, sharp, one)] == pytest.approx([1, 1, 0])


def test_overlap_is_shared_over_all():
    assert diagnostics.jaccard(np.array([[1, 2, 3]]), np.array([[3, 1, 2]])) == 1
    assert diagnostics.jaccard(np.array([[1, 2], [1, 2]]), np.array([[3, 4], [2, 3]])) == pytest.approx((0 + 1 / 3) / 2)


def test_routing_weights_are_the_models_gates(model):
    for modality in ("text", "image"):
        gates = diagnostics.routing_weights(model, modality)
        assert gates.shape == (tiny.NUM_ITEMS, model.config.num_experts)
        np.testing.assert_allclose(gates.sum(axis=1), 1)
        np.testing.assert_array_equal(gates, model.route(modality).routing_weights.detach())


def test_chosen_codes_are_those_of_each_history_alone(model):
    table = model.item_embeddings()["text"].detach()
    indices, sequences = diagnostics.chosen_codes(model, DATASET, SPLIT, "text")
    size = model.config.max_length * model.config.hidden_size
    for user in (0, 5, 23):
        history = F.embedding(torch.tensor(SPLIT.histories[user][-model.config.max_length :])[None], table)
        assert model.codebooks["text"](history).indices.item() == indices[user]
        padded = np.concatenate([np.zeros(size - history.numel()), history.flatten().numpy()])
        np.testing.assert_allclose(sequences[user], padded)


def test_codebook_error_is_one_at_the_means_and_grows_away_from_them():
    generator = np.random.default_rng(0)
    sequences = np.concatenate([generator.normal(-3, 1, (40, 5)), generator.normal(3, 1, (40, 5))])
    fitted, indices = diagnostics.kmeans(sequences, 2), np.repeat([0, 1], 40)
    means = np.stack([sequences[:40].mean(axis=0), sequences[40:].mean(axis=0)])
    assert diagnostics.codebook_error(sequences, means, indices, fitted.inertia_) == pytest.approx(1)
    moved = diagnostics.codebook_error(sequences, means + 1, indices, fitted.inertia_)
    assert moved == pytest.approx(1 + sequences.size / fitted.inertia_)
    assert diagnostics.codebook_error(sequences, means, 1 - indices, fitted.inertia_) > 5


def test_mending_is_positive_for_an_item_that_the_experts_bring_home():
    model = tiny.tiny_model(num_experts=2, use_image=False, codebook_size=2).eval()
    with torch.no_grad():
        model.item_embedding.weight[1:8] = torch.eye(16)[0]  # two camps by ID
        model.item_embedding.weight[8:] = torch.eye(16)[1]
        model.text_features[:7], model.text_features[7:] = 0.0, 0.0
        model.text_features[:7, 0], model.text_features[7:, 1] = 1.0, 1.0
        model.text_features[3] = model.text_features[12]  # item 4's text is that of the other camp
        model.projections["text"].weight.copy_(torch.eye(16)[:, : tiny.TEXT_SIZE])
        model.projections["text"].bias.zero_()
        experts = model.experts["text"]
        experts.gate.weight.zero_(), experts.gate.bias.zero_()
        experts.gate.weight[0, 0] = experts.gate.weight[1, 1] = 50.0
        experts.expert_weight.zero_()  # each expert says the same of all that it is asked about
        experts.expert_bias.copy_(torch.eye(16)[:2])
    scores = diagnostics.mending(model, "text")
    assert scores.argmax() == 3
    assert scores[3] > 0


def test_top_items_and_ranks_are_those_of_the_evaluation(model):
    top, ranks = diagnostics.top_and_ranks(model, DATASET, SPLIT, k=4)
    np.testing.assert_array_equal(ranks, target_ranks(model, DATASET, SPLIT))
    np.testing.assert_array_equal(top, top_items(model, DATASET, SPLIT, k=4))
    fewer, _ = diagnostics.top_and_ranks(model, DATASET, SPLIT, num_inference_steps=1, k=4)
    assert (fewer != top).any()
    every, _ = diagnostics.top_and_ranks(model, DATASET, SPLIT, k=100)
    assert (np.sort(every) == np.arange(1, tiny.NUM_ITEMS + 1)).all()


def test_a_truth_that_says_nothing_of_somebody_is_refused_by_name(tmp_path):
    dataset = dataclasses.replace(DATASET, path=tmp_path)
    assert diagnostics.read_truth(dataset) == {}
    (tmp_path / "truth").mkdir()
    rows = [f"{user_id},a journey\n" for user_id in dataset.user_ids]
    for content, left in ((rows[::-1], None), (rows[1:], dataset.user_ids[0])):
        (tmp_path / "truth/users.csv").write_text("".join(["user_id,journey\n", *content]))
        if left is None:
            assert diagnostics.read_truth(dataset)["users"].index.tolist() == dataset.user_ids
        else:
            with pytest.raises(InputError, match=f"users.csv has no row for the user '{left}'; add it, or delete"):
                diagnostics.read_truth(dataset)


def test_the_report_has_every_number_that_needs_no_truth_and_no_other(model):
    report = diagnostics.diagnose(model, DATASET, SPLIT)
    assert set(report) == {
        *(
            "codebook_perplexity",
            "codebook_perplexity_kmeans",
            "codebook_size",
            "codebook_error",
            "gate_entropy",
            "gate_usage_entropy",
        ),
        *("steps_top10_overlap", "draws_top10_overlap", "ndcg@10_by_steps", "steps_gain"),
    }
    assert set(report["codebook_perplexity"]) == {"id", "text", "image"}
    for modality, found in report["codebook_perplexity_kmeans"].items():
        _, sequences = diagnostics.chosen_codes(model, DATASET, SPLIT, modality)
        clusters = diagnostics.kmeans(sequences, model.config.codebook_size).labels_
        assert found == pytest.approx(diagnostics.perplexity(clusters))
    assert set(report["gate_entropy"]) == {"text", "image"}
    assert list(report["ndcg@10_by_steps"]) == ["1", "2", "4", "8"], "the tiny model has eight steps"
    json.dumps(report)


def test_with_a_truth_the_report_says_what_was_found(model, tmp_path):
    (tmp_path / "truth").mkdir()
    kinds = [f"kind {i % 3}" for i in range(tiny.NUM_ITEMS)]
    lies = ["text", "image", ""] * 5
    rows = zip(DATASET.item_ids, kinds, lies, strict=False)
    items = "item_id,type,misleading\n" + "".join(f"{item},{kind},{lie}\n" for item, kind, lie in rows)
    (tmp_path / "truth/items.csv").write_text(items)
    users = "user_id,journey\n" + "".join(f"{user},{n % 4}\n" for n, user in enumerate(DATASET.user_ids))
    (tmp_path / "truth/users.csv").write_text(users)
    report = diagnostics.diagnose(model, dataclasses.replace(DATASET, path=tmp_path), SPLIT)
    assert set(report["gate_type_nmi"]) == {"text", "image"}
    for name in ("code_journey_nmi", "code_journey_nmi_kmeans", "misleading_text_auc", "misleading_image_auc"):
        assert 0 <= report[name] <= 1


def test_too_few_users_or_items_are_refused_with_how_many_it_takes(model):
    few = some_users(DATASET, np.arange(3))
    with pytest.raises(InputError, match=r"3 users and 13 items; to diagnose this model takes \d+ and 11 at least"):
        diagnostics.diagnose(model, few, few.split("valid"))


def test_what_would_be_compared_with_nothing_is_left_out():
    model = tiny.tiny_model(num_experts=1, codebook_size=4).eval()
    few = some_users(DATASET, np.arange(4))
    report = diagnostics.diagnose(model, few, few.split("valid"))
    assert not {"gate_entropy", "gate_usage_entropy", "codebook_error"} & set(report)
    assert set(report["codebook_perplexity"]) == {"id", "text", "image"}


def test_modules_that_are_switched_off_are_left_out():
    model = tiny.tiny_model(use_codebooks=False, use_experts=False).eval()
    report = diagnostics.diagnose(model, DATASET, SPLIT)
    assert set(report) == {"steps_top10_overlap", "draws_top10_overlap", "ndcg@10_by_steps", "steps_gain"}


def test_distances_are_those_of_each_history_to_its_own_code(model):
    indices, sequences = diagnostics.chosen_codes(model, DATASET, SPLIT, "id")
    distances = diagnostics.distances_to_codes(model, "id", indices, sequences)
    codes = model.codebooks["id"].codes.flatten(1).tolist()
    for user in range(len(indices)):
        squares = [(a - b) ** 2 for a, b in zip(sequences[user].tolist(), codes[indices[user]], strict=True)]
        assert distances[user] == pytest.approx(sum(squares) ** 0.5)


def test_contents_are_shares_of_each_code_and_a_dead_code_is_empty():
    contents = diagnostics.code_contents(np.array([0, 0, 3, 0]), np.array(["tea", "zoo", "tea", "tea"]), 4)
    assert contents.columns.tolist() == [1, 2, 3, 4] and contents.index.tolist() == ["tea", "zoo"]
    assert contents.loc["tea"].tolist() == pytest.approx([2 / 3, 0, 0, 1])
    assert contents.loc["zoo"].tolist() == pytest.approx([1 / 3, 0, 0, 0])


def test_mean_cosine_is_that_of_all_pairs():
    vectors = torch.tensor([[1.0, 0], [0, 2], [3, 3], [-1, 0.5]])
    rows = vectors.tolist()
    cosines = [
        sum(a * b for a, b in zip(x, y, strict=True)) / (sum(a * a for a in x) * sum(b * b for b in y)) ** 0.5
        for i, x in enumerate(rows)
        for j, y in enumerate(rows)
        if i != j
    ]
    assert diagnostics.mean_cosine(vectors) == pytest.approx(sum(cosines) / len(cosines))


def test_what_is_heard_is_the_change_of_the_prediction_with_another_item(model):
    batch = tiny.tiny_batch()
    table = model.item_embeddings()["text"].detach()
    noise = torch.randn(len(batch.users), 16, generator=torch.Generator().manual_seed(4), dtype=table.dtype)
    sequence, _ = model.quantise("text", table[batch.item_seq])
    shares = []
    for i, item in enumerate(batch.pos_items):
        predicted = []
        for clean in (table[item], table[batch.pos_items[i - 1]]):
            x_t = model.schedule.add_noise(clean[None], noise[i : i + 1], torch.tensor([3]))
            row = slice(i, i + 1)
            predicted.append(model.denoisers["text"](x_t, torch.tensor([3]), sequence[row], batch.item_seq[row] > 0))
        shares.append(((predicted[0] - predicted[1]).norm() / predicted[0].norm()).item())
    assert diagnostics.heard(model, batch, "text", [3], seed=4)[0] == pytest.approx(np.mean(shares), rel=1e-3)
    deaf = tiny.tiny_model(noise_scale=0.0).eval()
    assert diagnostics.heard(deaf, batch, "text", [1, 8]).tolist() == [0, 0]


# What a training step says


def test_every_trained_parameter_is_in_one_module_and_all_have_a_name():
    model = tiny.tiny_model(**tiny.DEFAULTS)
    modules = diagnostics.parameters_by_module(model)
    assert list(modules) == list(diagnostics.MODULES.values())
    found = [id(parameter) for parameters in modules.values() for parameter in parameters]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    assert modules["gates"] == [p for experts in model.experts.values() for p in experts.gate.parameters()]


def test_other_models_modules_go_by_their_own_names():
    model = SASRec(tiny.CONFIG, tiny.NUM_ITEMS)
    assert set(diagnostics.parameters_by_module(model)) == {
        diagnostics.MODULES.get(name.split(".")[0], name.split(".")[0]) for name, _ in model.named_parameters()
    }


def test_a_step_says_its_terms_its_codes_and_the_norms_of_its_gradients():
    model = tiny.tiny_model(**tiny.DEFAULTS)
    output = tiny.loss_of(model)
    output.total.backward()
    numbers = diagnostics.step_numbers(model, output)
    assert numbers["loss"] == output.total.item()
    assert {name: numbers[name] for name in output.terms} == {name: t.item() for name, t in output.terms.items()}
    squares = 0.0
    for denoiser in model.denoisers.values():
        for parameter in denoiser.parameters():
            squares += sum(g * g for g in parameter.grad.flatten().tolist())
    assert numbers["gradient/denoisers"] == pytest.approx(math.sqrt(squares))
    counts = torch.cat([indices for _, indices in output.chosen["image"]]).bincount()
    shares = [count / len(tiny.TARGETS) for count in counts.tolist() if count]
    assert numbers["image/code_perplexity"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))


def test_a_model_without_codebooks_says_nothing_of_codes():
    model = tiny.tiny_model(use_codebooks=False)
    output = tiny.loss_of(model)
    output.total.backward()
    assert not [name for name in diagnostics.step_numbers(model, output) if "code" in name]


def test_terms_pull_where_they_reach_and_their_weighted_sum_is_the_whole_gradient():
    model = tiny.tiny_model(**tiny.DEFAULTS)
    table = diagnostics.term_gradients(model, tiny.tiny_batch(), seed=3)
    assert all(parameter.grad is None for parameter in model.parameters())
    reached = {term: set(row.index[row > 0]) for term, row in table.iterrows()}
    everything = set(diagnostics.MODULES.values())
    assert reached == {
        "cross_entropy": everything,
        "reconstruction": everything - {"repeat bias"},
        "contrastive": everything - {"repeat bias"},
        "match": everything - {"repeat bias", "denoisers"},
        "gate": {"gates"},
    }
    output = tiny.loss_of(model)
    total = torch.autograd.grad(output.total, model.repeat_bias)[0]
    assert table.loc["cross_entropy", "repeat bias"] == pytest.approx(total.norm().item())
    config, weights = model.config, {"cross_entropy": 1, "reconstruction": 1}
    weights |= {"contrastive": config.lambda_c, "match": config.lambda_match, "gate": config.lambda_gate}
    output = tiny.loss_of(model)
    summed = sum(weights[name.split("/")[1]] * part for name, part in output.parts.items())
    assert summed.item() == pytest.approx(output.total.item())


def test_without_groups_the_gates_have_nothing_to_name():
    model = tiny.tiny_model(**tiny.DEFAULTS)
    model.groups.age.zero_()
    model.groups.recall()
    table = diagnostics.term_gradients(model, tiny.tiny_batch())
    assert (table.loc["gate"] == 0).all() and (table.loc["cross_entropy"] > 0).all()
