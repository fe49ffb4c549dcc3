"""The Transformer block against plain loops over positions and heads."""

# B batch, L sequence, D hidden, A attention heads

import numpy as np
import oracles
import torch
from torch_layers import encoder_layer

from imecd_lite.transformer import PostNormBlock, TransformerBlock

L, D, A = 5, 8, 2
LENGTHS = (5, 2, 1, 4)


def random_block(dropout: float = 0.0) -> TransformerBlock:
    torch.manual_seed(0)
    block = TransformerBlock(D, A, dropout).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return block


def random_batch(padding: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded (B, L, D) and its mask; ``padding`` is the size of what stands in the padding."""
    hidden = torch.randn(len(LENGTHS), L, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.arange(L) >= L - torch.tensor(LENGTHS)[:, None]
    return hidden.where(mask[:, :, None], padding * torch.ones_like(hidden)), mask


def test_real_positions_are_those_of_plain_loops_over_the_history_without_padding():
    block, (hidden, mask) = random_block(), random_batch(padding=3.0)
    output, weights = block(hidden, mask).detach(), oracles.weights_of(block)
    for i, length in enumerate(LENGTHS):
        expected = oracles.transformer_block(weights, hidden[i, L - length :].numpy(), A)
        np.testing.assert_allclose(output[i, L - length :], expected, rtol=1e-9, atol=1e-12)


def test_what_stands_in_the_padding_is_seen_by_nobody():
    block, (hidden, mask), (other, _) = random_block(), random_batch(), random_batch(padding=100.0)
    torch.testing.assert_close(block(hidden, mask)[mask], block(other, mask)[mask])


def test_padding_is_finite_so_that_a_second_block_can_follow():
    block, (hidden, mask) = random_block(), random_batch()
    assert block(block(hidden, mask), mask).isfinite().all()


def test_last_only_is_the_last_position_of_the_whole():
    block, (hidden, mask) = random_block(), random_batch()
    last = block(hidden, mask, last_only=True)
    assert last.shape == (len(LENGTHS), 1, D)
    torch.testing.assert_close(last, block(hidden, mask)[:, -1:])


def test_so_it_is_where_each_position_sees_others():
    block, (hidden, mask) = random_block(), random_batch()
    causal = mask[:, None] & torch.ones(L, L, dtype=torch.bool).tril() | torch.eye(L, dtype=torch.bool)
    torch.testing.assert_close(block(hidden, causal, last_only=True), block(hidden, causal)[:, -1:])


def test_a_position_alone_sees_what_it_sees_joined_to_the_others():
    for kind in (TransformerBlock, PostNormBlock):
        torch.manual_seed(0)
        block, (hidden, mask) = kind(D, A, 0.0).double(), random_batch(padding=3.0)
        alone = torch.randn(len(LENGTHS), 1, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        joined = torch.cat([hidden, alone], dim=1), torch.nn.functional.pad(mask, (0, 1), value=True)
        seen = block.attend(alone, *block.keys_values(hidden), mask, sees_itself=True)
        torch.testing.assert_close(seen, block(*joined, last_only=True))


def test_dropout_acts_in_training_alone():
    block, (hidden, mask) = random_block(dropout=0.5), random_batch()
    torch.manual_seed(0)
    assert not torch.allclose(block(hidden, mask)[:, -1], block(hidden, mask)[:, -1])
    block.eval()
    assert torch.equal(block(hidden, mask), block(hidden, mask))
    torch.testing.assert_close(block(hidden, mask), random_block()(hidden, mask))


def test_every_parameter_learns_but_the_bias_of_the_keys_which_softmax_cancels():
    block, (hidden, mask) = random_block(), random_batch()
    target = torch.randn(len(LENGTHS), D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (block(hidden, mask, last_only=True)[:, 0] * target).sum().backward()
    for name, parameter in block.named_parameters():
        gradient = parameter.grad[D:] if name == "key_value.bias" else parameter.grad
        assert (gradient.abs() > 1e-12).all(), name
    assert block.key_value.bias.grad[:D].abs().max() < 1e-12


def test_post_norm_block_is_that_of_torch():
    torch.manual_seed(0)
    block = PostNormBlock(D, A, 0.0).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    hidden, mask = random_batch(padding=3.0)
    expected = encoder_layer(block)(hidden, src_key_padding_mask=~mask)
    torch.testing.assert_close(block(hidden, mask), expected)
    torch.testing.assert_close(block(hidden, mask, last_only=True), expected[:, -1:])
