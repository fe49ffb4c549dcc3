"""GRU4Rec: the gates of a recurrent unit, step by step; padding leaves the state at zero."""

# B batch, L sequence, D hidden

import numpy as np
import tiny
import torch

from imecd_lite.baselines import GRU4Rec


def loud_model() -> GRU4Rec:
    torch.manual_seed(0)
    model = GRU4Rec(tiny.tiny_config(), tiny.NUM_ITEMS).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_states_are_those_of_plain_loops_over_the_history_without_padding():
    model = loud_model()
    item_seq, table = tiny.left_padded(tiny.HISTORIES), model.item_embeddings()
    states = model.encode(item_seq, table).detach().numpy()
    into, within = (np.split(weight.detach().numpy(), 3) for weight in model.gru.parameters())
    for row, history in enumerate(tiny.HISTORIES):
        h = np.zeros(tiny.CONFIG.hidden_size)
        for step, item in enumerate(history, start=item_seq.shape[1] - len(history)):
            x = table[item].detach().numpy()
            reset, update = (sigmoid(into[k] @ x + within[k] @ h) for k in range(2))
            h = (1 - update) * np.tanh(into[2] @ x + reset * (within[2] @ h)) + update * h
            np.testing.assert_allclose(states[row, step], h, rtol=1e-9, atol=1e-12)
        padding = states[row, : item_seq.shape[1] - len(history)]
        assert not padding.any(), "zero vectors and no bias keep the state at zero"


def test_scores_compare_a_linear_map_of_the_last_state_with_every_item():
    model, batch = loud_model(), tiny.tiny_batch()
    table = model.item_embeddings()
    last = model.encode(batch.item_seq, table)[:, -1]
    expected = (last @ model.dense.weight.T + model.dense.bias) @ table.T
    torch.testing.assert_close(model.predict(batch)[:, 1:], expected[:, 1:].detach())


def test_a_state_knows_no_later_item():
    model = loud_model()
    table = model.item_embeddings()
    one, other = (model.encode(torch.tensor([history]), table)[0] for history in ([1, 2, 3, 4], [1, 2, 3, 9]))
    torch.testing.assert_close(one[:3], other[:3], rtol=0, atol=0)
    assert (one[3] - other[3]).abs().max() > 1e-3
