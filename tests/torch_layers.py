"""Torch's own Transformer layers with the weights of ours: an oracle that shares no line with the package."""

# D hidden, A attention heads

import torch
from torch import nn

from imecd_lite.transformer import PostNormBlock


def own_attention(theirs: nn.MultiheadAttention, block: PostNormBlock) -> None:
    """Give a torch attention (D, A) the weights of a block's."""
    theirs.in_proj_weight.data = torch.cat([block.query.weight, block.key_value.weight]).data
    theirs.in_proj_bias.data = torch.cat([block.query.bias, block.key_value.bias]).data
    theirs.out_proj = block.attention_out


def encoder_layer(block: PostNormBlock) -> nn.TransformerEncoderLayer:
    """The float64 layer that a ``PostNormBlock`` ought to be."""
    size, heads = block.query.in_features, block.num_attention_heads
    layer = nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0, "gelu", batch_first=True, dtype=torch.float64)
    own_attention(layer.self_attn, block)
    layer.norm1, layer.norm2 = block.attention_norm, block.feed_forward_norm
    layer.linear1, layer.linear2 = block.feed_forward[0], block.feed_forward[2]
    return layer


def decoder_layer(block: PostNormBlock) -> nn.TransformerDecoderLayer:
    """The float64 layer that a ``DecoderBlock`` ought to be."""
    size, heads = block.query.in_features, block.num_attention_heads
    layer = nn.TransformerDecoderLayer(size, heads, 4 * size, 0.0, "gelu", batch_first=True, dtype=torch.float64)
    own_attention(layer.self_attn, block.own)
    own_attention(layer.multihead_attn, block)
    layer.norm1, layer.norm2, layer.norm3 = block.own.attention_norm, block.attention_norm, block.feed_forward_norm
    layer.linear1, layer.linear2 = block.feed_forward[0], block.feed_forward[2]
    return layer
