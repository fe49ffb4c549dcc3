"""Ask RecBole, the library, for scores that our models have to give with the same weights.

Run it in an environment of RecBole's own, which is not this project's; the recorded outcome is kept in ``tests/`` and
``tests/test_recbole.py`` holds our models against it, without RecBole. From the root of the checkout:

    python3 -m venv /tmp/recbole
    /tmp/recbole/bin/pip install torch==2.13.0 numpy pandas colorlog colorama texttable tensorboard safetensors
    /tmp/recbole/bin/pip install --no-deps recbole==1.2.1
    /tmp/recbole/bin/python tools/recbole_scores.py

What RecBole requires besides is not needed to build its models, or pinned to old versions; hence ``--no-deps``.

GRU4Rec, SASRec, BERT4Rec and Caser are built at small size. Weights are drawn from a seed, large enough for each to
matter, and rounded to float32; scores are computed in float64. Dropout is off. RecBole's settings are those of its
``properties/model``, apart from the sizes and these, which make both sides mean the same:

- ``layer_norm_eps`` is 1e-5, torch's own, not 1e-12;
- Caser's window, ``MAX_ITEM_LIST_LENGTH``, is 5, and it has 16 and 4 filters, as its authors have;
- the padding's embedding is zero, as ours always is; RecBole draws it like any other.

RecBole pads on the right and counts positions from the first item, we pad on the left and count from the last. SASRec
and BERT4Rec are therefore given histories padded on the left and told that their length is the whole row: the last
item is at the last position on both sides, and padding is masked as a key on both. (BERT4Rec puts its mask behind the
row and cuts off the first position: with RecBole's own padding a short history loses its first item.) Caser's image of
the latest items is padded on the left, too. GRU4Rec has no positions and gets its histories as RecBole pads them, on
the right. Nothing of RecBole's code is changed.

The file has, by model, ``weights/...`` under RecBole's names, ``item_seq`` (B, L), the whole histories padded on the
left, and ``scores`` (B, I + 1). Of Caser it has ``convolved`` (B, D) instead, the vector z that the convolutions end
in: what follows is different on purpose, since we have its authors' output table, no user vector and no ReLU at the
end.
"""

# B batch, L sequence, D hidden, I items

import json
from pathlib import Path

import recbole
import torch
from recbole.model.sequential_recommender import BERT4Rec, Caser, GRU4Rec, SASRec
from safetensors.torch import save

OUTPUT = Path(__file__).resolve().parents[1] / "tests/recbole_scores.safetensors"

NUM_ITEMS, NUM_USERS, HIDDEN_SIZE, MAX_LENGTH, WINDOW = 20, 3, 16, 8, 5
WEIGHT_STD = 0.4

FIELDS = {
    "USER_ID_FIELD": "user",
    "ITEM_ID_FIELD": "item",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "length",
    "NEG_PREFIX": "negative_",
    "device": "cpu",
    "loss_type": "CE",
}
TRANSFORMER = {
    "MAX_ITEM_LIST_LENGTH": MAX_LENGTH,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size": HIDDEN_SIZE,
    "inner_size": 4 * HIDDEN_SIZE,
    "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "initializer_range": 0.02,
}
MODELS = {
    GRU4Rec: {
        "MAX_ITEM_LIST_LENGTH": MAX_LENGTH,
        "embedding_size": HIDDEN_SIZE,
        "hidden_size": HIDDEN_SIZE,
        "num_layers": 1,
        "dropout_prob": 0.0,
    },
    SASRec: TRANSFORMER,
    BERT4Rec: {**TRANSFORMER, "mask_ratio": 0.2},
    Caser: {
        "MAX_ITEM_LIST_LENGTH": WINDOW,
        "embedding_size": HIDDEN_SIZE,
        "nh": 16,
        "nv": 4,
        "dropout_prob": 0.0,
        "reg_weight": 0.0,
    },
}
"""The settings of each model; a name that is missing here and asked for by RecBole is None, see ``Settings``."""

HISTORIES = (
    (1, 2, 3, 4, 5, 6, 7, 8),
    (20, 3, 20, 11, 9, 9, 14, 1),
    (5, 18, 2, 7, 16, 10, 12),
    (13, 6, 17, 19, 4),
    (8, 15, 8),
    (19, 2),
    (12,),
)


class Settings(dict):
    """RecBole's ``Config`` where its models are concerned: a name that is not there is None."""

    def __missing__(self, name: str) -> None:
        return None


class Catalogue:
    """RecBole's ``Dataset`` where its models are concerned: how many users and items there are, padding included."""

    user_num = NUM_USERS + 1

    def num(self, field: str) -> int:
        """The size of a field's vocabulary."""
        return {"user": NUM_USERS, "item": NUM_ITEMS}[field] + 1


def padded(length: int, left: bool) -> torch.Tensor:
    """The latest ``length`` items of all histories as (B, length), zeros on one side."""
    rows = []
    for history in HISTORIES:
        items, zeros = list(history[-length:]), [0] * (length - len(history))
        rows.append(zeros + items if left else items + zeros)
    return torch.tensor(rows)


def build(kind: type, settings: dict[str, object], generator: torch.Generator) -> torch.nn.Module:
    """RecBole's model with drawn weights, in float64."""
    model = kind(Settings(FIELDS | settings), Catalogue()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(WEIGHT_STD * torch.randn(parameter.shape, generator=generator))
        model.item_embedding.weight[0] = 0
    return model.double()


@torch.no_grad()
def ask(model: torch.nn.Module, settings: dict[str, object]) -> dict[str, torch.Tensor]:
    """What the model makes of all histories: see the file's head."""
    length, item_seq = settings["MAX_ITEM_LIST_LENGTH"], padded(MAX_LENGTH, left=True)
    if isinstance(model, GRU4Rec):
        lengths = torch.tensor([len(history) for history in HISTORIES])
        scores = model.full_sort_predict({"item_list": padded(length, left=False), "length": lengths})
        return {"item_seq": item_seq, "scores": scores}
    if isinstance(model, Caser):
        asked = []
        model.fc2.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0]))
        model.full_sort_predict({"item_list": item_seq[:, -length:], "user": torch.ones(len(item_seq)).long()})
        return {"item_seq": item_seq, "convolved": asked[0][:, :HIDDEN_SIZE]}
    scores = model.full_sort_predict({"item_list": item_seq, "length": torch.full((len(item_seq),), length)})
    return {"item_seq": item_seq, "scores": scores}


def main() -> None:
    """Write ``tests/recbole_scores.safetensors``."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for kind, settings in MODELS.items():
        model = build(kind, settings, generator)
        weights = {f"weights/{name}": tensor.float() for name, tensor in model.state_dict().items()}
        for name, tensor in {**weights, **ask(model, settings)}.items():
            tensors[f"{kind.__name__}/{name}"] = tensor.contiguous()
    sizes = {"num_items": NUM_ITEMS, "hidden_size": HIDDEN_SIZE, "max_length": MAX_LENGTH, "num_attention_heads": 2}
    made = {"recbole": recbole.__version__, "torch": torch.__version__.split("+")[0], "config": sizes}
    OUTPUT.write_bytes(save(tensors, {"made": json.dumps(made)}))
    print(f"Wrote {OUTPUT.name}: {', '.join(kind.__name__ for kind in MODELS)}, by RecBole {recbole.__version__}.")


if __name__ == "__main__":
    main()
