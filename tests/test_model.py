"""The assembled model: its losses and scores against plain loops, its gradients, and what scores may depend on."""

# B batch, L sequence, D hidden, I items, Z codes, T steps

import numpy as np
import oracles
import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import imecd_lite.model
from imecd_lite.dataset import some_users
from imecd_lite.diffusion import user_noise
from imecd_lite.evaluate import target_ranks
from imecd_lite.model import IMECD, Recommender, contrastive_loss, distinct_pairs, move_repeats, standardise

SWITCHES = [
    {},
    {"use_experts": False},
    {"use_codebooks": False},
    {"use_contrastive": False},
    {"use_text": False},
    {"use_image": False},
    {"use_text": False, "use_image": False},
    tiny.DEFAULTS,
    {**tiny.DEFAULTS, "own_noise": 0.5, "use_experts": False},
    {**tiny.DEFAULTS, "use_codebooks": False},
]
"""The paper's model and the variants of Table III; then the same with the departures that the defaults make."""


def label(switches: dict) -> str:
    """A short name for a row of ``SWITCHES``."""
    departs = "denoiser" in switches
    changes = {name: value for name, value in switches.items() if not (departs and tiny.DEFAULTS.get(name) == value)}
    return " ".join([*["default"] * departs, *(f"{name}={value}" for name, value in changes.items())]) or "literal"


def oracle_of(model: IMECD) -> oracles.IMECD:
    features = {name: table.numpy() for name, table in tiny.random_features().items() if name in model.modalities}
    return oracles.IMECD(model.config, oracles.weights_of(model), features)


def oracle_loss(model: IMECD, rows=tiny.ALL, seed: int = 3) -> tuple:
    histories, targets, users = ([table[row] for row in rows] for table in (tiny.HISTORIES, tiny.TARGETS, tiny.USERS))
    return oracle_of(model).loss(histories, targets, users, tiny.draws_of(model, len(histories), seed))


# Eq. 1-6


def test_item_embeddings_are_eq_1_to_6_with_a_zero_row_for_the_padding():
    for switches in ({}, {"use_experts": False}):
        model = tiny.tiny_model(**switches)
        tables, expected = model.item_embeddings(), oracle_of(model).items
        assert list(tables) == list(expected) == ["id", "text", "image"]
        for name, table in tables.items():
            assert table.shape == (tiny.NUM_ITEMS + 1, model.config.hidden_size)
            assert not table[0].any()
            np.testing.assert_allclose(table[1:].detach(), expected[name], rtol=1e-9, atol=1e-12)


def test_the_gate_loss_leaves_the_ids_where_they_are():
    learning = {}
    for lambda_gate in (1.0, 2.0):
        model = tiny.tiny_model(**tiny.DEFAULTS | {"lambda_gate": lambda_gate})
        tiny.loss_of(model).total.backward()
        learning[lambda_gate] = model.experts["text"].gate.weight.grad, model.item_embedding.weight.grad
    (gate, ids), (gate_of_2, ids_of_2) = learning.values()
    assert (gate - gate_of_2).abs().max() > 1e-3
    torch.testing.assert_close(ids, ids_of_2)


def test_the_gate_loss_waits_for_groups_which_training_steps_bring():
    model = tiny.tiny_model(**tiny.DEFAULTS)
    model.groups.age.zero_()
    model.groups.recall()
    assert tiny.loss_of(model).terms["image/gate"] == 0
    tiny.train_steps(model, steps=2)
    assert model.groups.age == 2
    assert tiny.tiny_model(**tiny.DEFAULTS | {"lambda_gate": 0.0}).groups is None


# Eq. 12-15, 20-22


def check_loss(**switches: object) -> None:
    model = tiny.tiny_model(**switches)
    output, (total, terms, chosen) = tiny.loss_of(model), oracle_loss(model)
    assert set(output.terms) == set(terms)
    for name, expected in terms.items():
        assert output.terms[name].item() == pytest.approx(expected, rel=1e-4), name
    assert output.total.item() == pytest.approx(total, rel=1e-4)
    sizes = [model.config.codebook_size] * len(chosen)
    for (name, indices), size in zip(chosen.items(), sizes, strict=True):
        counts = sum(torch.bincount(i, minlength=size) for _, i in output.chosen[name])
        expected = np.bincount(indices, minlength=size) if model.config.use_codebooks else 0
        assert np.array_equal(counts, expected), name


def test_loss_and_each_of_its_terms_are_those_of_the_equations():
    check_loss()


@pytest.mark.parametrize("switches", SWITCHES[1:], ids=label)
def test_so_are_those_of_each_variant_of_table_iii(switches):
    check_loss(**switches)


@pytest.mark.parametrize("lambda_c", [0.0, 0.9])
def test_lambda_c_weighs_the_contrastive_terms_and_nothing_else(lambda_c):
    output = tiny.loss_of(tiny.tiny_model(lambda_c=lambda_c))
    contrastive = sum(value for name, value in output.terms.items() if name.endswith("contrastive"))
    others = sum(value for name, value in output.terms.items() if not name.endswith("contrastive"))
    assert contrastive > 0
    torch.testing.assert_close(output.total, others + lambda_c * contrastive)


def test_gradients_are_the_slopes_of_the_oracles_loss():
    """Central differences of the plain loops; without codebooks, whose gradient is not the slope by design.

    Of the items, a target (in Eq. 14 as written x_0 carries gradient), one that is in a history, and one in neither.
    """
    model, rows, size = tiny.tiny_model(use_codebooks=False), (0, 3, 4, 1), 1e-4
    tiny.loss_of(model, tiny.tiny_batch(rows)).total.backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        width = parameter.shape[-1]
        for row in (8, 13, 10) if name == "item_embedding.weight" else (-1,):  # the last row is never out of reach
            index = row % (parameter.numel() // width) * width + torch.randint(width, (), generator=generator).item()
            flat, losses = parameter.data.view(-1), []
            at = flat[index].item()
            for offset in (-size, size):
                flat[index] = at + offset
                losses.append(oracle_loss(model, rows)[0])
            flat[index] = at
            slope = (losses[1] - losses[0]) / (2 * size)
            assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-3, abs=1e-6), f"{name}[{index}]"


# Eq. 15


def random_predictions(rows: int = 7, size: int = 4) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def check_contrastive(histories, users) -> None:
    predictions = random_predictions(len(users))
    distinct = distinct_pairs(tiny.left_padded(histories), torch.tensor(users))
    expected = oracles.contrastive(predictions.numpy(), histories, users)
    assert contrastive_loss(predictions, distinct).item() == pytest.approx(expected, rel=1e-9)


def test_contrastive_pairs_are_different_histories_of_different_users():
    check_contrastive(tiny.HISTORIES, tiny.USERS)
    distinct = distinct_pairs(tiny.left_padded(tiny.HISTORIES), torch.tensor(tiny.USERS))
    assert torch.equal(distinct, distinct.T) and not distinct.diagonal().any()
    assert not distinct[0, 4] and not distinct[2, 5] and distinct[0, 1]  # one user; one history; neither


def test_contrastive_loss_leaves_out_rows_without_a_partner():
    check_contrastive([(1,), (1, 2), (2,), (1,)], [0, 0, 1, 1])
    check_contrastive([(1,), (1,), (1,), (2,)], [0, 1, 2, 2])
    assert contrastive_loss(random_predictions(2), torch.zeros(2, 2, dtype=torch.bool)).item() == 0
    check_contrastive([(1,)], [0])


def test_contrastive_loss_of_a_batch_without_a_pair_still_has_a_gradient_of_zero():
    predictions = random_predictions(1).requires_grad_()
    contrastive_loss(predictions, torch.zeros(1, 1, dtype=torch.bool)).backward()
    assert not predictions.grad.any()


def test_contrastive_loss_falls_as_predictions_turn_apart_and_is_deaf_to_their_length():
    distinct = ~torch.eye(2, dtype=torch.bool)
    at = [contrastive_loss(torch.tensor([[1.0, 0.0], [c, (1 - c * c) ** 0.5]]), distinct) for c in (1, 0.5, 0, -1)]
    assert [round(v.item(), 5) for v in at] == [1, 0.5, 0, -1]
    predictions, wide = random_predictions(), ~torch.eye(7, dtype=torch.bool)
    torch.testing.assert_close(contrastive_loss(100 * predictions, wide), contrastive_loss(predictions, wide))


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_contrastive_loss_needs_no_more_than_a_matrix_of_the_batch():
    predictions, users = random_predictions(64, 32), torch.arange(64)
    with Largest() as largest:
        contrastive_loss(predictions, distinct_pairs(users[:, None] + 1, users))
    assert largest.elements <= 64 * 64


def test_a_loss_in_parts_is_the_same():
    results, parts, checkpoint = [], [], imecd_lite.model.checkpoint
    for most in (imecd_lite.model.MAX_LOGITS, 5 * len(tiny.ALL)):
        model, predicted = tiny.tiny_model(**tiny.DEFAULTS), random_predictions(len(tiny.ALL), tiny.CONFIG.hidden_size)
        table = model.item_embeddings()["id"].detach()
        learnt = [predicted.requires_grad_(), table.requires_grad_(), model.repeat_bias]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(imecd_lite.model, "checkpoint", lambda *a, **b: parts.append(a) or checkpoint(*a, **b))
            patch.setattr(imecd_lite.model, "MAX_LOGITS", most)
            patch.setattr(imecd_lite.model, "PART_LOGITS", most)
            loss = model.cross_entropy(0, predicted, table, tiny.tiny_batch())
            results.append([loss.detach(), *torch.autograd.grad(loss, learnt)])
    assert len(parts) == -(-tiny.NUM_ITEMS // 5) > 2, "five items at a time"
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


# Gradients


def untouched(name: str, parameter: torch.Tensor, centred: bool) -> torch.Tensor:
    """Elements that cannot have a gradient.

    They are the padding's row, the bias of the keys, which softmax cancels, and that of a projection without experts,
    where the catalogue is centred.
    """
    mask = torch.zeros_like(parameter, dtype=torch.bool)
    if name == "item_embedding.weight":
        mask[0] = True
    if name.endswith("key_value.bias"):
        mask[: len(mask) // 2] = True
    if name.startswith("projections.") and name.endswith("bias") and centred:
        mask[:] = True
    return mask


@pytest.mark.parametrize("switches", SWITCHES, ids=label)
def test_every_element_of_every_parameter_gets_a_gradient(switches):
    """The longest history has max_length items, so no position and no column of the selector is out of reach.

    The temperature is 1: at 0.1 a choice that is sure of itself leaves gradients too small to hold.
    """
    model = tiny.tiny_model(temperature=1.0, **switches)
    tiny.loss_of(model).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        learns = ~untouched(name, parameter, model.config.unit_variance and not model.config.use_experts)
        assert (parameter.grad[learns] != 0).all(), name
        assert (parameter.grad[~learns].abs() < 1e-14).all(), name


def test_every_parameter_gets_a_gradient_at_the_papers_temperature():
    model = tiny.tiny_model()
    tiny.loss_of(model).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_modules_that_are_switched_off_have_no_parameters():
    names = {switch: [n for n, _ in tiny.tiny_model(**{switch: False}).named_parameters()] for switch in
             ("use_experts", "use_codebooks", "use_text", "use_image")}  # fmt: skip
    assert not [n for n in names["use_experts"] if "experts" in n]
    assert not [n for n in names["use_codebooks"] if "codebooks" in n]
    assert not [n for n in names["use_text"] if ".text" in n] and not [n for n in names["use_image"] if ".image" in n]


def test_training_moves_every_parameter_and_nothing_that_is_frozen():
    model = tiny.tiny_model()
    before = {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    tiny.train_steps(model)
    after = dict((*model.named_parameters(), *model.named_buffers()))
    frozen = {"text_features", "image_features", "schedule.alphas_cumprod"}
    frozen |= {f"denoisers.{name}.sinusoids" for name in model.modalities}
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    assert not model.item_embedding.weight[0].any()


def test_codes_move_by_em_alone_to_the_means_of_the_histories_that_chose_them():
    model = tiny.tiny_model()
    before = {name: codebook.codes.clone() for name, codebook in model.codebooks.items()}
    output, (_, _, chosen) = tiny.loss_of(model), oracle_loss(model)
    output.total.backward()
    for name, codebook in model.codebooks.items():
        assert torch.equal(codebook.codes, before[name]), "loss and backward leave the codes alone"
        assert not codebook.codes.requires_grad
    model.after_step(output)
    items = oracle_of(model).items
    for name, codebook in model.codebooks.items():
        sequences = [np.array([items[name][item - 1] for item in history]) for history in tiny.HISTORIES]
        np.testing.assert_allclose(codebook.codes, oracles.em(before[name].numpy(), sequences, chosen[name]), atol=1e-9)
        unchosen = sorted(set(range(model.config.codebook_size)) - set(chosen[name]))
        assert torch.equal(codebook.codes[unchosen], before[name][unchosen])


def test_features_are_neither_learnt_nor_saved():
    model = tiny.tiny_model()
    names = {name for name, _ in model.named_parameters()}
    assert not names & {"text_features", "image_features"}
    assert set(model.state_dict()) == names | {f"codebooks.{name}.codes" for name in model.modalities}


# Repeats and chunks


def test_what_a_shopper_has_is_moved_once_however_often_she_has_it():
    scores, history = torch.zeros(2, 5), torch.tensor([[-1, 1, 3, 1], [0, 0, 0, 0]])
    moved = move_repeats(scores, history, torch.tensor(0.5))
    assert moved is scores and moved.tolist() == [[0, 5, 0, 5, 0], [5, 0, 0, 0, 0]]


def chunk_example() -> tuple[IMECD, "imecd_lite.model.Batch"]:
    model = tiny.tiny_model(max_length=50)
    generator = torch.Generator().manual_seed(0)
    lengths = [50, 1, 3, 7, 2, 20, 5, 1, 4, 12, 3, 33]
    histories = [torch.randint(1, tiny.NUM_ITEMS + 1, (n,), generator=generator).tolist() for n in lengths]
    users = torch.arange(len(lengths)) % 9
    targets = torch.randint(1, tiny.NUM_ITEMS + 1, (len(lengths),), generator=generator)
    item_seq = tiny.left_padded(histories)
    batch = imecd_lite.model.Batch(item_seq, targets, users, tiny.user_keys_of(users), item_seq.double())
    return model, batch


def test_no_history_is_padded_to_50_when_it_is_short():
    model, batch = chunk_example()
    lengths = []
    model.denoisers["id"].register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[2].shape[:2].numel()))
    tiny.loss_of(model, batch)
    real = (batch.item_seq > 0).sum().item()
    assert real <= sum(lengths) < 0.6 * batch.item_seq.numel()


# Scores, Eq. 19


def predict(model: IMECD, rows=tiny.ALL, length: int | None = None, **options: object) -> torch.Tensor:
    batch = tiny.tiny_batch(rows, length)
    return model.full_sort_predict(batch.item_seq, batch.user_keys, **options)


def check_scores(**switches: object) -> None:
    model = tiny.tiny_model(**switches).eval()
    scores, oracle, keys = predict(model, seed=4), oracle_of(model), tiny.tiny_batch().user_keys
    steps = model.config.num_train_timesteps + 1
    noise = user_noise(keys, 4, (steps, len(model.modalities), model.config.hidden_size)).double().numpy()
    assert scores.shape == (7, tiny.NUM_ITEMS + 1) and (scores[:, 0] == -torch.inf).all()
    for i, history in enumerate(tiny.HISTORIES):
        expected = oracle.scores(history, {name: noise[:, i, m] for m, name in enumerate(model.modalities)})
        np.testing.assert_allclose(scores[i, 1:], expected, atol=2e-4)


def test_scores_are_those_of_eq_16_to_19():
    check_scores()


@pytest.mark.parametrize("switches", SWITCHES[1:], ids=label)
def test_so_are_those_of_each_variant(switches):
    check_scores(**switches)


def check_scores_depend_on_the_user_alone(model: IMECD) -> None:
    together = predict(model)
    torch.testing.assert_close(predict(model), together, rtol=0, atol=0)
    order = [4, 0, 6, 2, 5, 1, 3]
    torch.testing.assert_close(predict(model, order), together[order])
    torch.testing.assert_close(predict(model, length=6 + 5), together)
    for rows in ((1,), (0,), (4, 1), (6, 5, 3, 2)):
        torch.testing.assert_close(predict(model, rows), together[list(rows)])
        torch.testing.assert_close(predict(model, rows, length=20), together[list(rows)])


def test_a_users_scores_do_not_change_with_batch_mates_order_or_padding():
    check_scores_depend_on_the_user_alone(tiny.tiny_model().eval())


def test_nor_do_they_after_training():
    model = tiny.tiny_model()
    tiny.train_steps(model, steps=5)
    check_scores_depend_on_the_user_alone(model.eval())


def check_ranks_depend_on_the_user_alone(model: IMECD) -> None:
    dataset = tiny.tiny_dataset()
    split = dataset.split("test")
    ranks = target_ranks(model, dataset, split, seed=1)
    for batch_size in (1, 7, 24):
        assert np.array_equal(target_ranks(model, dataset, split, batch_size, seed=1), ranks)
    for kept in (slice(None, None, 2), slice(20, 24)):  # other users in the dataset, none of them in the way
        fewer = some_users(dataset, np.arange(dataset.num_users)[kept])
        assert np.array_equal(target_ranks(model, fewer, fewer.split("test"), seed=1), ranks[kept])
    assert not np.array_equal(target_ranks(model, dataset, split, seed=2), ranks)


def test_nor_do_the_ranks_of_their_targets():
    model = tiny.tiny_model(noise_scale=30.0)  # so loud that another seed gives other ranks
    check_ranks_depend_on_the_user_alone(model)
    tiny.train_steps(model)
    check_ranks_depend_on_the_user_alone(model)


def test_in_single_precision_they_change_by_rounding_alone():
    model = tiny.tiny_model().float().eval()
    together = predict(model)
    alone = torch.cat([predict(model, [row], length=9) for row in range(7)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_scores_change_with_the_seed_with_the_user_and_with_each_item_of_the_history():
    model = tiny.tiny_model().eval()
    base, batch = predict(model), tiny.tiny_batch()
    assert ((predict(model, seed=1) - base)[:, 1:].abs().amax(1) > 1e-3).all()
    assert (base[2, 1:] - base[5, 1:]).abs().max() > 1e-3  # one history, two users
    others = model.full_sort_predict(batch.item_seq, batch.user_keys + 1)
    assert ((others - base)[:, 1:].abs().amax(1) > 1e-3).all()
    for k in range(6):
        changed = batch.item_seq[:1].clone()
        changed[0, k] = 13
        difference = model.full_sort_predict(changed, batch.user_keys[:1]) - base[:1]
        assert difference[:, 1:].abs().max() > 1e-6, f"item {k}"


def test_scoring_leaves_model_and_random_state_alone():
    model = tiny.tiny_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    scores = predict(model)
    assert not scores.requires_grad
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_trajectories_start_from_the_same_noise_whatever_the_number_of_steps():
    model, batch = tiny.tiny_model().eval(), tiny.tiny_batch()
    runs = {steps: model.generate(batch.item_seq, batch.user_keys, 0, steps) for steps in (1, 4, 8, None)}
    for name in model.modalities:
        start = runs[8][name].samples[0]
        assert all(torch.equal(run[name].samples[0], start) for run in runs.values())
        torch.testing.assert_close(runs[None][name].samples, runs[8][name].samples)
        assert len(runs[4][name].predictions) == 4
        torch.testing.assert_close(runs[1][name].predictions[0], runs[8][name].predictions[0])
    starts = torch.stack([runs[8][name].samples[0] for name in model.modalities])
    assert len(torch.unique(starts[:, 1:4])) == starts[:, 1:4].numel()  # modalities share no draw


def test_fewer_steps_give_the_scores_of_their_last_sample():
    model, batch = tiny.tiny_model().eval(), tiny.tiny_batch()
    for steps in (1, 3):
        runs, tables = model.generate(batch.item_seq, batch.user_keys, 0, steps), model.item_embeddings()
        expected = sum(run.samples[-1] @ tables[name].T for name, run in runs.items())
        scores = predict(model, num_inference_steps=steps)
        torch.testing.assert_close(scores[:, 1:], expected[:, 1:].detach())


def test_the_catalogue_is_embedded_once_for_all_batches(monkeypatch):
    model, dataset, calls, embed = tiny.tiny_model().eval(), tiny.tiny_dataset(), [], IMECD.item_embeddings
    monkeypatch.setattr(IMECD, "item_embeddings", lambda self: calls.append(self) or embed(self))
    target_ranks(model, dataset, dataset.split("test"), batch_size=5)
    assert dataset.num_users > 5 and len(calls) == 1


def test_dropout_acts_in_training_alone():
    model = tiny.tiny_model(dropout=0.5)
    torch.manual_seed(0)
    assert tiny.loss_of(model).total != tiny.loss_of(model).total
    model.eval()
    assert tiny.loss_of(model).total == tiny.loss_of(model).total
    torch.testing.assert_close(predict(model), predict(tiny.tiny_model().eval()))


# Randomness of the loss


def test_loss_is_a_function_of_the_generator():
    model = tiny.tiny_model()
    assert tiny.loss_of(model, seed=1).total == tiny.loss_of(model, seed=1).total
    assert tiny.loss_of(model, seed=1).total != tiny.loss_of(model, seed=2).total


def test_every_timestep_from_1_to_t_is_drawn_and_no_other():
    model, seen = tiny.tiny_model(), []
    for denoiser in model.denoisers.values():
        denoiser.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[1].tolist()))
    for seed in range(20):
        tiny.loss_of(model, seed=seed)
    assert set(seen) == set(range(1, model.config.num_train_timesteps + 1))


# The boundary


def test_features_that_never_vary_and_a_catalogue_of_one_item_are_no_trouble():
    features = standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(features, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]) / 2**0.5)
    assert standardise(torch.ones(1, 3)).tolist() == [[0, 0, 0]]
    constant = torch.tensor([12.3456, 0.37, 3.3, -100.7]).expand(1000, 4)  # whose means are rounded
    assert (standardise(constant) == 0).all()


@pytest.mark.parametrize("use_experts", [True, False])
def test_items_that_all_look_alike_leave_the_gradients_finite(use_experts):
    alike = {f"{name}_features": table[:1].expand(16, -1) for name, table in tiny.random_features().items()}
    model = IMECD(tiny.tiny_config(**tiny.DEFAULTS, use_experts=use_experts), 16, **alike)
    tiny.loss_of(model).total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_features_that_do_not_fit_are_refused():
    features = tiny.random_features()
    with pytest.raises(ValueError, match=r"text_features .* 13 items, got none; .* use_text"):
        IMECD(tiny.CONFIG, tiny.NUM_ITEMS, image_features=features["image"])
    with pytest.raises(ValueError, match=r"image_features .* 13 items, got 12 rows"):
        IMECD(tiny.CONFIG, tiny.NUM_ITEMS, features["text"], features["image"][1:])


def test_a_single_history_is_refused_by_its_shape():
    with pytest.raises(ValueError, match=r"item_seq must be \(B, L\), got \(3,\)"):
        tiny.tiny_model().full_sort_predict(torch.tensor([1, 2, 3]), torch.tensor([0]))


def test_a_history_longer_than_max_length_is_refused_with_both_lengths():
    model = tiny.tiny_model().eval()
    with pytest.raises(ValueError, match=r"7.*6|6.*7"):
        model.full_sort_predict(torch.arange(1, 8)[None], torch.tensor([0]))


def test_recommender_asks_its_heirs_for_a_loss_and_for_scores():
    recommender, batch = Recommender(), tiny.tiny_batch()
    with pytest.raises(NotImplementedError):
        recommender.loss(batch, torch.Generator())
    with pytest.raises(NotImplementedError):
        recommender.full_sort_predict(batch.item_seq, batch.user_keys)
