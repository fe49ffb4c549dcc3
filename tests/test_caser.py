"""Caser: convolutions over the latest five items, and nothing else."""

# B batch, L sequence, D hidden, W window

import numpy as np
import tiny
import torch

from imecd_lite.baselines import Caser
from imecd_lite.config import TrainConfig
from imecd_lite.train import train


def loud_model() -> Caser:
    torch.manual_seed(0)
    model = Caser(tiny.tiny_config(), tiny.NUM_ITEMS).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model


def test_scores_are_those_of_plain_loops_over_filters():
    model, batch = loud_model(), tiny.tiny_batch()
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    scores = model.predict(batch)[:, 1:].numpy()
    for row, history in enumerate(tiny.HISTORIES):
        window = ([0] * 5 + list(history))[-5:]
        image = weights["item_embedding.weight"][window]  # (W, D)
        found = [weights["vertical.weight"][v] @ image + weights["vertical.bias"][v] for v in range(model.NUM_VERTICAL)]
        for k in range(1, 6):
            filters, bias = weights[f"horizontal.{k - 1}.weight"], weights[f"horizontal.{k - 1}.bias"]  # (H, D, k)
            places = [
                [(image[i : i + k].T * filters[h]).sum() + bias[h] for i in range(6 - k)]
                for h in range(model.NUM_HORIZONTAL)
            ]
            found.append(np.maximum(places, 0).max(axis=1))
        z = np.maximum(weights["dense.weight"] @ np.concatenate(found) + weights["dense.bias"], 0)
        np.testing.assert_allclose(scores[row], weights["output.weight"] @ z + weights["output.bias"], rtol=1e-9)


def test_items_before_the_window_change_nothing_and_order_within_it_does():
    model = loud_model()

    def score(history: list[int]) -> torch.Tensor:
        return model.full_sort_predict(torch.tensor([history]), torch.tensor([0]))[0, 1:]

    torch.testing.assert_close(score([9, 1, 2, 3, 4, 5]), score([8, 1, 2, 3, 4, 5]), rtol=0, atol=0)
    assert (score([1, 2, 3, 5, 4]) - score([1, 2, 3, 4, 5])).abs().max() > 1e-3
    assert score([7]).isfinite().all()


def test_the_trainer_gives_adam_its_weight_decay(monkeypatch):
    asked, adam = [], torch.optim.Adam

    def watched(parameters, lr, weight_decay, **options):
        asked.append(weight_decay)
        return adam(parameters, lr, weight_decay=weight_decay, **options)

    monkeypatch.setattr(torch.optim, "Adam", watched)
    train(loud_model().float(), tiny.tiny_dataset(), TrainConfig(epochs=1))
    assert asked == [1e-6]
