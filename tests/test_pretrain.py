"""The tiny encoders: trained by nothing but items and a seed, and stored as any encoder of the hub is."""

# B batch, T tokens, D hidden, P side of a picture

import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_data import write_ids, write_shop
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, RobertaModel, ViTModel

from imecd_lite import pretrain
from imecd_lite.config import BUNDLED_DATA
from imecd_lite.dataset import load_dataset
from imecd_lite.encoders import MAX_TOKENS, encode_images, encode_texts
from imecd_lite.errors import InputError
from imecd_lite.files import tree_hash
from imecd_lite.pretrain import (
    IMAGE_SIZE,
    MASK_SHARE,
    TEMPERATURE,
    distort,
    pretrain_encoders,
    pretrain_image_encoder,
    pretrain_text_encoder,
    train_tokenizer,
    view_loss,
)

STEPS = {"text_steps": 3, "image_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny models lose time to waiting for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Twelve items with little pictures; the first has a description that has to be cut."""
    folder = write_shop(tmp_path_factory.mktemp("data") / "shop")
    items = pd.read_csv(folder / "items.csv", dtype=str)
    items.loc[0, "description"] = " ".join(str(number) for number in range(2 * MAX_TOKENS))
    items.loc[1, "description"] = ""
    items.to_csv(folder / "items.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def encoders(shop, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    pretrain_encoders(load_dataset(shop), folder, **STEPS)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {kind: tree_hash(folder / kind) for kind in ("text", "image")}


def seeded(seed: int, call, *arguments: object):
    """What a function that draws from PyTorch's own generator returns after this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return call(*arguments)


# What is written


@pytest.mark.parametrize("bundled", [True, False], ids=["bundled", "made here"])
def test_both_folders_are_hugging_faces(encoders, bundled):
    folder = BUNDLED_DATA / "encoders" if bundled else encoders
    tokenizer = AutoTokenizer.from_pretrained(folder / "text")
    processor = AutoImageProcessor.from_pretrained(folder / "image", backend="pil")
    text, image = AutoModel.from_pretrained(folder / "text"), AutoModel.from_pretrained(folder / "image")
    assert isinstance(text, RobertaModel) and isinstance(image, ViTModel)
    for model in (text, image):
        assert 100_000 <= sum(p.numel() for p in model.parameters()) <= 600_000
        assert all(p.isfinite().all() for p in model.parameters())
    assert len(tokenizer) == text.config.vocab_size and tokenizer.model_max_length == MAX_TOKENS
    assert (processor.size["height"], processor.size["width"]) == (image.config.image_size,) * 2


def test_the_encoders_encode(shop, encoders):
    dataset = load_dataset(shop)
    for rows in (
        encode_texts(dataset.item_texts(), encoders / "text"),
        encode_images(dataset.image_paths(), encoders / "image"),
    ):
        assert rows.shape == (12, pretrain.HIDDEN_SIZE) and rows.isfinite().all()


def test_same_seed_same_bytes_whatever_the_histories_and_the_global_generator(shop, encoders, tmp_path):
    other = write_shop(tmp_path / "shop", seed=1)
    (other / "items.csv").write_bytes((shop / "items.csv").read_bytes())
    seeded(99, lambda: pretrain_encoders(load_dataset(other), tmp_path / "again", **STEPS))
    assert hashes(tmp_path / "again") == hashes(encoders)


def test_another_seed_gives_other_encoders(shop, encoders, tmp_path):
    pretrain_encoders(load_dataset(shop), tmp_path, seed=1, **STEPS)
    assert not set(hashes(tmp_path).values()) & set(hashes(encoders).values())


def test_neither_encoder_depends_on_how_long_the_other_is_trained(shop, encoders, tmp_path):
    pretrain_encoders(load_dataset(shop), tmp_path, **STEPS | {"text_steps": 1})
    assert hashes(tmp_path)["image"] == hashes(encoders)["image"]
    assert hashes(tmp_path)["text"] != hashes(encoders)["text"]


def test_global_generators_are_left_alone(shop, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    pretrain_encoders(load_dataset(shop), tmp_path, text_steps=1, image_steps=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_an_ids_only_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no items\.csv"):
        pretrain_encoders(load_dataset(write_ids(tmp_path / "ids")), tmp_path / "encoders")
    assert not (tmp_path / "encoders").exists()


def test_what_is_there_is_refused_before_training_and_kept(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "pretrain_text_encoder", None)
    (tmp_path / "text").write_text("precious")
    for output in (tmp_path, tmp_path / "text"):
        with pytest.raises(InputError, match="is not an empty folder; name another --output"):
            pretrain_encoders(load_dataset(shop), output)
    assert (tmp_path / "text").read_text() == "precious"


def test_encoders_are_both_there_or_neither(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "pretrain_image_encoder", None)  # fails
    with pytest.raises(TypeError):
        pretrain_encoders(load_dataset(shop), tmp_path / "encoders", text_steps=1)
    assert not list(tmp_path.iterdir())


# How they learn


@pytest.fixture
def losses(monkeypatch) -> list[float]:
    """The losses of all steps to come."""
    seen, take_step = [], pretrain.take_step

    def note(loss, *rest):
        seen.append(loss.item())
        take_step(loss, *rest)

    monkeypatch.setattr(pretrain, "take_step", note)
    return seen


def test_the_text_encoder_learns(shop, tmp_path, losses):
    seeded(0, pretrain_text_encoder, load_dataset(shop).item_texts(), tmp_path, 40)
    assert len(losses) == 40 and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_the_image_encoder_learns(tmp_path, losses):
    paths = sorted((BUNDLED_DATA / "shop" / "images").glob("*.png"))[::100]
    seeded(0, pretrain_image_encoder, paths, tmp_path, 40)
    assert len(losses) == 40 and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.fixture
def watched():
    """Every encoder that works, and a copy of what it is given."""
    calls = []

    def note(module, arguments):
        if isinstance(module, RobertaModel | ViTModel):
            calls.append((module, arguments[0].detach().clone()))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    yield calls
    handle.remove()


def test_what_is_saved_is_what_was_trained(shop, tmp_path, watched):
    pretrain_encoders(load_dataset(shop), tmp_path, **STEPS)
    for kind in (RobertaModel, ViTModel):
        model = next(module for module, _ in watched if isinstance(module, kind))
        trained = model.state_dict()
        saved = AutoModel.from_pretrained(tmp_path / {RobertaModel: "text", ViTModel: "image"}[kind]).state_dict()
        assert model.training  # with dropout
        assert {name for name in saved if not name.startswith("pooler.")} <= set(trained)
        assert all(torch.equal(saved[name], trained[name]) for name in trained if not name.startswith("pooler."))


def test_masking_hides_a_share_of_the_tokens_and_never_a_special_one(shop, tmp_path, watched):
    dataset = load_dataset(shop)
    seeded(0, pretrain_text_encoder, [*dataset.item_texts(), "", "a longer text, of many more words"], tmp_path, 20)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    hidden, texts = [], 0
    for _, masked in watched:
        for row in masked.tolist():
            texts += 1
            length = max(t for t, token in enumerate(row) if token != tokenizer.pad_token_id) + 1
            assert row[0] == tokenizer.bos_token_id and row[length - 1] == tokenizer.eos_token_id
            own = row[1 : length - 1]
            assert not {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} & set(own)
            hidden += [token == tokenizer.mask_token_id for token in own]
    assert texts == 20 * 2 * 14 and abs(np.mean(hidden) - MASK_SHARE) < 0.03


def test_both_views_of_a_batch_are_the_same_texts_masked_twice(shop, tmp_path, watched):
    seeded(0, pretrain_text_encoder, load_dataset(shop).item_texts(), tmp_path, 2)
    mask = AutoTokenizer.from_pretrained(tmp_path).mask_token_id
    for _, masked in watched:
        first, second = masked.chunk(2)  # (B, T) each
        seen = (first != mask) & (second != mask)
        assert torch.equal(first[seen], second[seen]) and not torch.equal(first, second)


def test_both_views_of_a_batch_are_the_same_pictures_distorted_twice(tmp_path, watched):
    colours = ("red", "lime", "blue")  # as bright as can be in their own channel, dark in the others
    for colour in colours:
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    seeded(0, pretrain_image_encoder, [tmp_path / f"{colour}.png" for colour in colours], tmp_path / "image", 2)
    for _, views in watched:
        first, second = views.mean(dim=(2, 3)).chunk(2)  # (B, 3) each
        assert torch.equal(first.argmax(dim=1), second.argmax(dim=1))
        assert sorted(first.argmax(dim=1).tolist()) == [0, 1, 2]
        assert (first != second).all() and not (views.abs() == 1).any()


def test_view_loss_is_a_plain_loop():
    size, generator = 4, torch.Generator().manual_seed(0)
    views = torch.randn(2 * size, 6, generator=generator, dtype=torch.float64)
    lengths = [math.sqrt(sum(float(x) ** 2 for x in view)) for view in views]

    def alike(i: int, j: int) -> float:
        cosine = sum(float(x) * float(y) for x, y in zip(views[i], views[j], strict=True)) / lengths[i] / lengths[j]
        return math.exp(cosine / TEMPERATURE)

    total = 0.0
    for i in range(2 * size):
        other = i + size if i < size else i - size
        total -= math.log(alike(i, other) / sum(alike(i, j) for j in range(2 * size) if j != i))
    assert view_loss(views).item() == pytest.approx(total / (2 * size), rel=1e-9)


def test_view_loss_is_least_where_views_agree():
    inputs = torch.eye(5)
    agreeing, swapped = torch.cat([inputs, inputs]), torch.cat([inputs, inputs.roll(1, 0)])
    assert view_loss(agreeing) < 0.01 < view_loss(swapped)
    assert view_loss(3 * agreeing) == pytest.approx(view_loss(agreeing).item())  # lengths don't count


# Distorted pictures


def test_distort_keeps_shape_and_range_and_changes_nothing_in_place():
    pictures = torch.rand(6, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = pictures.clone()
    distorted = seeded(0, distort, pictures)
    assert distorted.shape == pictures.shape and distorted.dtype == pictures.dtype
    assert torch.equal(pictures, before) and distorted.abs().max() <= 1.2 + 0.1


def test_distort_is_random_for_each_picture_and_each_call_but_not_for_a_seed():
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pictures = picture.expand(8, -1, -1, -1)
    first, second, again = seeded(0, distort, pictures), seeded(1, distort, pictures), seeded(0, distort, pictures)
    assert torch.equal(first, again)
    rows = torch.cat([first, second]).flatten(1)
    assert torch.cdist(rows, rows).fill_diagonal_(torch.inf).min() > 0.1


def test_distort_mirrors_half_of_the_pictures_and_turns_none_upside_down():
    across = torch.linspace(-1, 1, 32).expand(400, 3, 32, 32)  # dark at the left
    moved = seeded(0, distort, across)
    mirrored = moved[..., 0].mean(dim=(1, 2)) > moved[..., -1].mean(dim=(1, 2))
    assert 0.4 < mirrored.float().mean() < 0.6
    moved = seeded(0, distort, across.mT)  # dark at the top
    assert (moved[..., 0, :].mean(dim=(1, 2)) < moved[..., -1, :].mean(dim=(1, 2))).all()


# The tokenizer


def test_every_text_comes_back_from_its_tokens():
    tokenizer = train_tokenizer(["Red mug, Acme", "Blue mug, Acme"] * 10)
    for text in ("Red mug", "unseen words", "Grün & 🙂, 日本", "a  b"):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    assert len(tokenizer("Red mug, Acme")["input_ids"]) < len(tokenizer("Zed zug, Qzme")["input_ids"])


def test_the_special_tokens_are_the_first_five_and_robertas():
    tokenizer = train_tokenizer(["Red mug"])
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]
