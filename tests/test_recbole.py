"""The same weights give the same scores as in RecBole, whose answers ``tools/recbole_scores.py`` wrote down."""

# B batch, L sequence, D hidden, I items

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imecd_lite.baselines import BERT4Rec, Caser, GRU4Rec, SASRec
from imecd_lite.baselines.sequential import SequentialRecommender
from imecd_lite.config import IMECDConfig
from imecd_lite.files import read_tensors

TENSORS, METADATA = read_tensors(Path(__file__).parent / "recbole_scores.safetensors")
SIZES = json.loads(METADATA["made"])["config"]

Weights = dict[str, torch.Tensor]

BLOCK = {
    "multi_head_attention.query": "query",
    "multi_head_attention.dense": "attention_out",
    "multi_head_attention.LayerNorm": "attention_norm",
    "feed_forward.dense_1": "feed_forward.0",
    "feed_forward.dense_2": "feed_forward.2",
    "feed_forward.LayerNorm": "feed_forward_norm",
}


def take(weights: Weights, names: dict[str, str]) -> Weights:
    """Weight and bias, where there is one, of layers by RecBole's name -> by ours; what is taken is gone."""
    found = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in names.items() for kind in ("weight", "bias")}
    return {ours: weights.pop(theirs) for theirs, ours in found.items() if theirs in weights}


def of_gru4rec(weights: Weights) -> Weights:
    ours = {f"gru.{kind}_l0": weights.pop(f"gru_layers.{kind}_l0") for kind in ("weight_ih", "weight_hh")}
    return ours | take(weights, {"item_embedding": "item_embedding", "dense": "dense"})


def of_transformer(weights: Weights) -> Weights:
    """Ours has keys and values in one layer."""
    ours = {"positions": weights.pop("position_embedding.weight")}
    for i in range(2):
        theirs = f"trm_encoder.layer.{i}"
        for kind in ("weight", "bias"):
            pair = [weights.pop(f"{theirs}.multi_head_attention.{name}.{kind}") for name in ("key", "value")]
            ours[f"blocks.{i}.key_value.{kind}"] = torch.cat(pair)
        ours |= take(weights, {f"{theirs}.{a}": f"blocks.{i}.{b}" for a, b in BLOCK.items()})
    return ours | take(weights, {"item_embedding": "item_embedding", "LayerNorm": "input_norm"})


def of_bert4rec(weights: Weights) -> Weights:
    """RecBole's mask is the last row of its item embeddings, and the padding has a bias, too."""
    ours = of_transformer(weights) | take(weights, {"output_ffn": "head.0", "output_ln": "head.2"})
    *items, ours["mask_embedding"] = ours["item_embedding.weight"]
    ours["item_embedding.weight"] = torch.stack(items)
    return ours | {"output_bias": weights.pop("output_bias")[1:]}


def of_caser(weights: Weights) -> Weights:
    """Convolutions over images of one channel are, ours, a map of positions and convolutions over D channels."""
    ours = take(weights, {"item_embedding": "item_embedding", "conv_v": "vertical", "fc1": "dense"})
    ours["vertical.weight"] = ours["vertical.weight"][:, 0, :, 0]  # (V, 1, W, 1)
    for k in range(5):
        filters = take(weights, {f"conv_h.{k}": f"horizontal.{k}"})
        filters[f"horizontal.{k}.weight"] = filters[f"horizontal.{k}.weight"][:, 0].transpose(1, 2)  # (H, 1, k, D)
        ours |= filters
    return ours


def load(kind: type, convert: Callable[[Weights], Weights]) -> tuple[SequentialRecommender, Weights]:
    """Our model in float64 with RecBole's weights, and those that it has no place for."""
    prefix = f"{kind.__name__}/weights/"
    theirs = {name.removeprefix(prefix): tensor for name, tensor in TENSORS.items() if name.startswith(prefix)}
    settings = {name: value for name, value in SIZES.items() if name != "num_items"}
    model = kind(IMECDConfig(dropout=0.0, **settings), SIZES["num_items"])
    ours = convert(theirs)
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected and set(missing) <= {"output.weight", "output.bias"}  # Caser's own table
    return model.double().eval(), theirs


@pytest.mark.parametrize(
    ("kind", "convert"), [(GRU4Rec, of_gru4rec), (SASRec, of_transformer), (BERT4Rec, of_bert4rec)]
)
def test_the_same_weights_give_the_scores_of_recbole(kind, convert):
    model, left_over = load(kind, convert)
    assert not left_over, "all of RecBole's weights have a place in ours"
    item_seq, expected = (TENSORS[f"{kind.__name__}/{name}"] for name in ("item_seq", "scores"))
    scores = model.full_sort_predict(item_seq, torch.arange(len(item_seq)))
    assert expected.dtype == torch.float64 and expected[:, 1:].std(dim=1).min() > 0.1, "items differ in score"
    torch.testing.assert_close(scores[:, 1:], expected[:, 1:])  # column 0 is padding: RecBole gives it a score


def test_the_same_convolutions_find_in_the_latest_items_what_those_of_recbole_find():
    """Up to z: what follows, RecBole's user vector, ReLU and tied output table, is left out of ours on purpose."""
    model, left_over = load(Caser, of_caser)
    assert set(left_over) == {"user_embedding.weight", "fc2.weight", "fc2.bias"}
    item_seq, expected = (TENSORS[f"Caser/{name}"] for name in ("item_seq", "convolved"))
    assert (expected > 0).double().mean() > 0.25, "not all is cut off by the ReLU"
    torch.testing.assert_close(model.represent(item_seq, model.item_embeddings()), expected)
