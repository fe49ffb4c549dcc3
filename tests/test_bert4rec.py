"""BERT4Rec: a hidden item is guessed from both sides and not from itself; who is hidden, and how often."""

# B batch, L sequence

import dataclasses

import pytest
import tiny
import torch

from imecd_lite.baselines import BERT4Rec


def loud_model() -> BERT4Rec:
    torch.manual_seed(0)
    model = BERT4Rec(tiny.tiny_config(), tiny.NUM_ITEMS).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model


def test_a_hidden_item_is_guessed_from_what_comes_before_and_after():
    model = loud_model()
    table, mask = model.item_embeddings(), model.mask_token
    state = model.encode(torch.tensor([[1, 2, mask, 4, 5]]), table)[0, 2]
    for changed in ([9, 2, mask, 4, 5], [1, 2, mask, 4, 9]):
        assert (model.encode(torch.tensor([changed]), table)[0, 2] - state).abs().max() > 1e-3


def test_the_loss_of_the_last_item_does_not_see_it_but_the_others():
    """With the last item alone hidden, another true item changes the target, not the scores it is read from."""
    model, batch = loud_model(), tiny.tiny_batch([3])
    asked = []
    compare = model.compare
    model.compare = lambda users, item_seq, table: asked.append(compare(users, item_seq, table)) or asked[-1]
    model.LAST_ONLY = 1.0
    for target in (1, 5):
        model.loss(dataclasses.replace(batch, pos_items=torch.tensor([target])), torch.Generator())
    torch.testing.assert_close(asked[0], asked[1], rtol=0, atol=0)


def test_the_loss_is_that_of_a_loop_over_hidden_items():
    model, batch = loud_model(), tiny.tiny_batch()
    table = model.item_embeddings()
    for seed in range(4):
        whole = torch.cat([batch.item_seq, batch.pos_items[:, None]], dim=1)[:, -tiny.CONFIG.max_length :]
        hidden = model.choose(whole, torch.Generator().manual_seed(seed))
        losses = []
        for row, chosen in zip(whole, hidden, strict=True):
            real = row > 0
            history, chosen = row[real], chosen[real]
            states = model.encode(history.masked_fill(chosen, model.mask_token)[None], table)[0]
            for place in chosen.nonzero()[:, 0].tolist():
                logits = model.head(states[place]) @ table[1:].T + model.output_bias
                losses.append(-logits.log_softmax(dim=0)[history[place] - 1])
        loss = model.loss(batch, torch.Generator().manual_seed(seed)).total
        torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_half_of_the_batches_hide_the_last_item_alone_the_others_a_fifth_and_at_least_one():
    model = loud_model()
    item_seq = tiny.left_padded([list(range(1, 11)), [3], [4, 5]])
    last, shares = 0, []
    for seed in range(400):
        hidden = model.choose(item_seq, torch.Generator().manual_seed(seed))
        assert hidden.any(dim=1).all() and not (hidden & (item_seq == 0)).any()
        if hidden.sum() == 3 and hidden[:, -1].all():
            last += 1
        else:
            shares.append(hidden[0].double().mean().item())
    assert last / 400 == pytest.approx(0.5, abs=0.08)
    at_least_one = 0.2 + 0.8**10 / 10  # where nobody was drawn, one is
    assert sum(shares) / len(shares) == pytest.approx(at_least_one, abs=0.04)


def test_a_recommendation_reads_the_mask_behind_the_latest_items():
    model = loud_model()
    long = torch.tensor([[1, 2, 3, 4, 5, 6]])  # max_length items: the first makes room for the mask
    states = model.encode(torch.tensor([[2, 3, 4, 5, 6, model.mask_token]]), model.item_embeddings())
    expected = model.head(states[:, -1]) @ model.item_embeddings()[1:].T + model.output_bias
    torch.testing.assert_close(model.full_sort_predict(long, torch.tensor([0]))[:, 1:], expected.detach())
