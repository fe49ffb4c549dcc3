"""MISSRec: clusters against scikit-learn, scores against torch's layers, and what an item may lack."""

# B batch, L sequence, D hidden, I items, M modalities, N interests, K clusters, P points

import dataclasses

import pytest
import tiny
import torch
import torch_layers
from sklearn.cluster import KMeans

from imecd_lite.baselines import MISSRec
from imecd_lite.baselines.missrec import k_means
from imecd_lite.baselines.sequential import drop_items, info_nce
from imecd_lite.checkpoint import load_checkpoint, save_checkpoint
from imecd_lite.config import TrainConfig
from imecd_lite.dataset import Batch
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.train import train

NO_TEXT, NO_IMAGE, NEITHER = 3, 9, 13
"""Items whose features are all zero in ``gappy``: 13 has neither text nor picture."""


def gappy() -> dict[str, torch.Tensor]:
    table = tiny.random_features()
    table["text"][[NO_TEXT - 1, NEITHER - 1]] = 0
    table["image"][[NO_IMAGE - 1, NEITHER - 1]] = 0
    return table


def fresh(features: dict[str, torch.Tensor] | None = None, **changes: object) -> MISSRec:
    table = features or tiny.random_features()
    torch.manual_seed(0)
    return MISSRec(tiny.tiny_config(**changes), tiny.NUM_ITEMS, table["text"], table["image"])


def loud(features: dict[str, torch.Tensor] | None = None, **changes: object) -> MISSRec:
    """A float64 model with clusters, its every parameter large enough to matter, in eval mode."""
    model = fresh(features, **changes).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    model.on_epoch_start(torch.Generator().manual_seed(0))
    return model.eval()


def scores(model: MISSRec, batch: Batch | None = None) -> torch.Tensor:
    return model.predict(batch or tiny.tiny_batch())[:, 1:]


def clusters_of(model: MISSRec, history: tuple[int, ...]) -> set[int]:
    return {int(model.clusters[m, item]) for m in range(len(model.clusters)) for item in history} - {0}


# Clusters


def blobs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return centres.repeat(10, 1) + torch.randn(60, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_k_means_is_that_of_scikit_learn(steps):
    points = blobs()
    start = points[torch.randperm(60, generator=torch.Generator().manual_seed(7))[:9]]
    theirs = KMeans(9, init=start.numpy(), n_init=1, max_iter=steps, tol=0, algorithm="lloyd")
    theirs.fit(points.numpy())
    centroids, labels = k_means(points, 9, torch.Generator().manual_seed(7), steps, chunk_size=7)
    torch.testing.assert_close(centroids, torch.from_numpy(theirs.cluster_centers_))
    assert labels.tolist() == theirs.labels_.tolist()


def test_an_empty_cluster_stays_where_it_is():
    points = torch.tensor([[0.0, 0.0]] * 5 + [[1.0, 1.0]])
    centroids, labels = k_means(points, 4, torch.Generator().manual_seed(0))
    assert centroids.isfinite().all()
    torch.testing.assert_close(centroids[labels], points)


def test_every_point_is_in_the_nearest_cluster_and_what_is_lacking_in_none():
    model = loud(gappy())
    table = model.item_embeddings()[1:]
    assert len(model.centroids) - 1 == 11, "half of 2 x 13 - 4 points"
    for m, lacking in enumerate(({NO_TEXT, NEITHER}, {NO_IMAGE, NEITHER})):
        assert model.clusters[m, 0] == 0
        for item in range(1, tiny.NUM_ITEMS + 1):
            distances = (model.centroids[1:] - table[m, item]).norm(dim=1)
            assert model.clusters[m, item] == (0 if item in lacking else distances.argmin() + 1)


def test_the_generator_decides_the_clusters():
    model, found = loud(), []
    for seed in (1, 1, 2):
        model.on_epoch_start(torch.Generator().manual_seed(seed))
        found.append(model.centroids.clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_training_steps_leave_clusters_alone_and_a_new_epoch_does_not():
    model = loud(lambda_c=0.1).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(3):
        output = model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        model.after_step(output)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.on_epoch_start(torch.Generator().manual_seed(0))
    assert not torch.equal(model.centroids, before["centroids"])


def test_the_share_of_mixed_clusters_is_counted():
    model = loud()
    texts, images = (set(row[1:].tolist()) for row in model.clusters)
    assert model.mixed_share() == pytest.approx(len(texts & images) / len(texts | images))
    assert 0 < model.mixed_share() < 1
    model.clusters[1] = model.clusters[0]
    assert model.mixed_share() == 1
    with pytest.raises(ValueError, match="call on_epoch_start first"):
        fresh().mixed_share()


# Interests


def test_the_interests_of_a_history_are_its_distinct_clusters():
    model, seen = loud(gappy()), []
    model.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    _, mask = model.interests(tiny.tiny_batch().item_seq)
    vectors = seen[0][0]
    for row, history in enumerate(tiny.HISTORIES):
        found = sorted(vectors[row][mask[row]].tolist())
        assert found == sorted(model.centroids[number].tolist() for number in clusters_of(model, history))
    assert mask.shape[1] == max(len(clusters_of(model, history)) for history in tiny.HISTORIES)


def test_the_order_of_interests_changes_nothing():
    model = loud()
    before, order = scores(model), torch.randperm(len(model.centroids) - 1) + 1
    model.centroids[order] = model.centroids[1:].clone()
    model.clusters.copy_(torch.cat([torch.zeros(1, dtype=order.dtype), order])[model.clusters])
    torch.testing.assert_close(scores(model), before)


def test_interests_change_the_scores():
    model = loud()
    before = scores(model)
    model.centroids += torch.randn(model.centroids.shape)
    assert (scores(model) - before).abs().max() > 1e-3


def test_a_history_without_clusters_is_read_all_the_same():
    model = loud(gappy())
    batch = dataclasses.replace(tiny.tiny_batch([1]), item_seq=torch.tensor([[NEITHER]]))
    assert not clusters_of(model, (NEITHER,))
    assert scores(model, batch).isfinite().all()
    assert model.loss(batch, torch.Generator().manual_seed(0)).total.isfinite()
    assert scores(fresh()).isfinite().all(), "a model before its first epoch"


# Scores


@pytest.mark.parametrize("features", [tiny.random_features(), gappy()])
def test_scores_are_those_of_torch_layers_on_each_history_alone(features):
    model, ids = loud(features), slice(1, None)
    text, image = (
        projection(getattr(model, f"{name}_features")[ids]) for name, projection in model.projections.items()
    )
    text = text * features["text"].any(dim=1, keepdim=True)  # (I, D)
    image = image * features["image"].any(dim=1, keepdim=True)
    table = model.item_embedding.weight[ids]
    predicted = scores(model)
    for row, history in enumerate(tiny.HISTORIES):
        rows = [item - 1 for item in history]
        interests = model.centroids[sorted(clusters_of(model, history))][None]
        memory = model.memory_norm(torch_layers.encoder_layer(model.encoder)(interests))
        hidden = model.input_norm(text[rows] + image[rows] + table[rows] + model.positions[-len(history) :])[None]
        hidden = model.output_norm(torch_layers.decoder_layer(model.decoder)(hidden, memory))
        for item in range(1, tiny.NUM_ITEMS + 1):
            c = [torch.cosine_similarity(hidden[0, -1], modality[item - 1], dim=0) for modality in (text, image)]
            weights = [(model.kappa * cosine).exp() for cosine in c]
            if not text[item - 1].any():
                weights[0] = torch.tensor(0.0)
            if not image[item - 1].any():
                weights[1] = torch.tensor(0.0)
            fused = sum(w * cosine for w, cosine in zip(weights, c, strict=True)) / sum(weights) if any(weights) else 0
            own = torch.cosine_similarity(hidden[0, -1], table[item - 1], dim=0)
            torch.testing.assert_close(predicted[row, item - 1], (own + 2 * fused) / (3 * tiny.CONFIG.temperature))


def test_only_the_last_state_is_computed_and_it_is_that_of_encode():
    model, batch = loud(), tiny.tiny_batch()
    table = model.item_embeddings()
    states = model.encode(batch.item_seq, table)
    assert states.shape == (*batch.item_seq.shape, tiny.CONFIG.hidden_size) and states.isfinite().all()
    torch.testing.assert_close(states[:, -1], model.represent(batch.item_seq, table))


def test_an_earlier_state_knows_later_items_and_not_through_the_interests_alone():
    model = loud()
    table, histories = model.item_embeddings().sum(dim=0), torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9]])
    memory, mask = (tensor[:1].expand(2, *tensor.shape[1:]) for tensor in model.interests(histories[:1]))
    states, others = model.decode(histories, table, memory, mask)
    assert (states[0] - others[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["text", "image"])
def test_one_modality_alone_works_and_fusion_is_its_cosine(name):
    model, batch = loud(**{"use_text": name == "text", "use_image": name == "image"}), tiny.tiny_batch()
    table = model.item_embeddings()
    users = torch.nn.functional.normalize(model.represent(batch.item_seq, table), dim=-1)
    own, feature = (users @ torch.nn.functional.normalize(rows[1:], dim=-1).T for rows in table)
    torch.testing.assert_close(scores(model), (own + 2 * feature) / (3 * tiny.CONFIG.temperature))
    assert model.mixed_share() == 0


def test_there_is_no_missrec_without_features():
    table = tiny.random_features()
    for changes, text in (({}, None), ({"use_text": False, "use_image": False}, table["text"])):
        with pytest.raises(InputError, match="MISSRec needs text features"):
            MISSRec(tiny.tiny_config(**changes), tiny.NUM_ITEMS, text, table["image"])


# Learning


def test_the_loss_is_that_of_plain_loops():
    model, batch = loud(lambda_c=0.3), tiny.tiny_batch()
    output = model.loss(batch, torch.Generator().manual_seed(5))
    dropped = drop_items(batch.item_seq, torch.Generator().manual_seed(5), model.config.max_length)
    assert (dropped != batch.item_seq).any()
    table, states, spread = model.item_embeddings(), [], []
    for view in (batch.item_seq, dropped):
        last = []
        for row in view:
            history = row[row > 0][None]
            memory, mask = model.interests(history)
            assert mask.all()
            spread.append((sum(memory[0]) / len(memory[0])).square().sum() / tiny.CONFIG.hidden_size)
            last.append(model.encode(history, table)[0, -1])
        states.append(torch.stack(last))
    cross_entropy = torch.nn.functional.cross_entropy(scores(model), batch.pos_items - 1)
    contrast = info_nce(*states, batch.pos_items, tiny.CONFIG.temperature)
    interests = sum(spread) / len(spread)
    torch.testing.assert_close(output.parts["id/contrastive"], contrast)
    torch.testing.assert_close(output.parts["id/interests"], interests)
    torch.testing.assert_close(output.total, cross_entropy + 0.3 * contrast + MISSRec.GAMMA * interests)


def test_without_lambda_c_there_is_one_view():
    output = loud(lambda_c=0.0).loss(tiny.tiny_batch(), torch.Generator().manual_seed(5))
    assert set(output.terms) == {"id/cross_entropy", "id/interests"}


def test_kappa_starts_at_zero_and_learns_and_nothing_lacking_spoils_a_gradient():
    model = fresh(gappy()).train()
    assert model.kappa == 0
    model.on_epoch_start(torch.Generator().manual_seed(0))
    model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(0)).total.backward()
    assert model.kappa.grad.abs() > 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert not model.text_features.requires_grad and not model.centroids.requires_grad


def test_a_checkpoint_brings_its_clusters_along(tmp_path):
    dataset = tiny.tiny_dataset()
    features = Features(**tiny.random_features(), fingerprint="made up")
    model, config = fresh(), TrainConfig(epochs=2)
    train(model, dataset, config)
    save_checkpoint(tmp_path, "missrec", model, config, dataset, features)
    loaded = load_checkpoint(tmp_path, dataset, features)
    assert loaded.clusters.any()
    torch.testing.assert_close(scores(loaded), scores(model), rtol=0, atol=0)
