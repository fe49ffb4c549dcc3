"""Features: a row is its own text or picture and nothing else; the cache is current, made anew, or left alone.

The paper's encoders are asked for by their names, from a made-up hub cache: their architectures and file formats, tiny
and random. Nothing asks the network.
"""

# I items, n inputs, B batch, T tokens, D encoder's hidden size, P side of a picture

import functools
import io
import json
import os
import shutil
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import torch
from made_data import write_ids, write_shop
from PIL import ExifTags, Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModel,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTModel,
)

from imecd_lite.config import BUNDLED_DATA
from imecd_lite.dataset import load_dataset
from imecd_lite.encoders import (
    CACHE_FILE,
    IMAGE_ENCODER,
    MAX_TOKENS,
    TEXT_ENCODER,
    Features,
    encode_images,
    encode_texts,
    encoder_name,
    hash_inputs,
    load_features,
    mean_pool,
    open_image,
    read_pixels,
)
from imecd_lite.errors import InputError
from imecd_lite.files import read_tensors, tree_hash, write_tensors

KINDS = ("text", "image")
ROBERTA, VIT = "FacebookAI/roberta-base", "google/vit-base-patch16-224"
TEXTS = (
    "Red mug",
    "mug",
    "A very small porcelain cup with a saucer, for espresso, Acme, Kitchen|Cups",
    "Grün & 🙂, ünïcödé",
    "x " * 30,
    "Blue mug",
    "Lantern, Acme",
)

each_text_encoder = pytest.mark.parametrize("encoder", [TEXT_ENCODER, ROBERTA], ids=["bundled", "named"])
each_image_encoder = pytest.mark.parametrize("encoder", [IMAGE_ENCODER, VIT], ids=["bundled", "named"])


def place_in_cache(cache: Path, name: str) -> Path:
    """The folder where a hub cache keeps the files of ``name``."""
    repository, commit = cache / f"models--{name.replace('/', '--')}", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    (repository / "snapshots" / commit).mkdir(parents=True)
    return repository / "snapshots" / commit


def write_roberta(folder: Path) -> None:
    """As ``FacebookAI/roberta-base``: a masked language model without pooler, ``vocab.json`` and ``merges.txt``."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    ids = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=514,
        type_vocab_size=1,
        initializer_range=0.2,  # loud enough for every token to be heard
    )
    RobertaForMaskedLM(config).save_pretrained(folder)


def write_vit(folder: Path) -> None:
    """As ``google/vit-base-patch16-224``: an image classifier without pooler, pictures of 224 by 224 pixels."""
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, initializer_range=0.2
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory):
    """The made-up hub cache; no network, and one thread, for tiny models lose time to waiting for a second."""
    cache, threads = tmp_path_factory.mktemp("hub"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            write_roberta(place_in_cache(cache, ROBERTA))
            write_vit(place_in_cache(cache, VIT))
        yield cache
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """(n,) pictures of many sizes and kinds, no two alike."""
    folder, rng, paths = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for number, mode in enumerate(("RGB", "L", "P", "RGB", "CMYK", "RGB", "1")):
        pixels = rng.integers(256, size=(10 + 40 * number, 40, 3), dtype=np.uint8)
        paths.append(folder / f"{number}.{'jpg' if mode == 'CMYK' else 'png'}")
        Image.fromarray(pixels // (number + 1)).convert(mode).save(paths[-1])
    return paths


@pytest.fixture
def shop(tmp_path) -> Path:
    """Twelve items with titles and pictures."""
    return write_shop(tmp_path / "shop")


def load(shop: Path, **options: object) -> Features:
    return load_features(load_dataset(shop), progress=False, **options)


def refused(shop: Path, **options: object) -> str:
    """The one sentence with which features are refused."""
    with pytest.raises(InputError) as caught:
        load(shop, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


def stamp(file: Path) -> tuple:
    """What a write would change: a file is replaced, never written over."""
    return file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def edit(shop: Path, item: int, column: str, value: str) -> None:
    """Put ``value`` into a row of ``items.csv``."""
    items = pd.read_csv(shop / "items.csv", dtype=str, keep_default_na=False)
    items.loc[item, column] = value
    items.to_csv(shop / "items.csv", index=False)


def forbid_writing(monkeypatch, folder: Path) -> None:
    """Say that ``folder`` is read-only: whoever runs the tests may be root, who may write anywhere."""
    access = os.access

    def answer(path: Path, mode: int) -> bool:
        inside = folder in (Path(path), *Path(path).parents)
        return not (inside and mode == os.W_OK) and access(path, mode)

    monkeypatch.setattr(os, "access", answer)


def assert_close(rows: torch.Tensor, others: torch.Tensor) -> None:
    torch.testing.assert_close(rows, others, rtol=1e-4, atol=1e-5)


# Texts


@each_text_encoder
def test_a_text_is_the_mean_of_the_last_states_over_its_own_tokens(encoder):
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    rows = encode_texts(TEXTS, encoder)
    assert isinstance(model, RobertaModel) and rows.shape == (len(TEXTS), model.config.hidden_size)
    for row, text in zip(rows, TEXTS, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]  # (T, D)
        assert_close(row, sum(states[t] for t in range(len(states))) / len(states))


@each_text_encoder
def test_a_texts_row_does_not_change_with_the_batch_its_order_or_its_padding(encoder):
    rows = encode_texts(TEXTS, encoder)
    assert torch.cdist(rows, rows).fill_diagonal_(torch.inf).min() > 0.01  # no two alike
    for batch_size in (1, 2, 3):
        assert_close(encode_texts(TEXTS, encoder, batch_size=batch_size), rows)
    assert_close(encode_texts(TEXTS[::-1], encoder).flip(0), rows)
    assert_close(encode_texts(TEXTS[1:4], encoder), rows[1:4])


@each_text_encoder
def test_long_texts_are_cut(encoder):
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    long = " ".join(str(number) for number in range(MAX_TOKENS))
    ids = tokenizer(long)["input_ids"]
    assert len(ids) > MAX_TOKENS
    kept = torch.tensor([ids[: MAX_TOKENS - 1] + ids[-1:]])  # </s> ends what is left
    with torch.no_grad():
        expected = model(kept).last_hidden_state[0].mean(dim=0)
    rows = encode_texts([long, long + " and more", "short"], encoder)
    assert_close(rows[:2], expected.expand(2, -1))


def test_mean_pool_is_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 4, generator=generator)
    lengths = (5, 1, 3)
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in lengths])
    for row, states, length in zip(mean_pool(hidden, mask), hidden, lengths, strict=True):
        torch.testing.assert_close(row, sum(states[:length]) / length)


# Pictures


@each_image_encoder
def test_a_picture_is_the_last_state_of_its_class_token(encoder, pictures):
    model = AutoModel.from_pretrained(encoder).eval()
    side = model.config.image_size
    rows = encode_images(pictures, encoder)
    assert isinstance(model, ViTModel) and rows.shape == (len(pictures), model.config.hidden_size)
    for row, path in zip(rows, pictures, strict=True):
        pixels = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        pixel_values = torch.tensor(np.asarray(pixels) / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)  # (3, P, P)
        with torch.no_grad():
            assert_close(row, model(pixel_values[None]).last_hidden_state[0, 0])


@each_image_encoder
def test_a_pictures_row_does_not_change_with_the_batch_or_its_order(encoder, pictures):
    rows = encode_images(pictures, encoder)
    assert torch.cdist(rows, rows).fill_diagonal_(torch.inf).min() > 0.01
    for batch_size in (1, 3):
        assert_close(encode_images(pictures, encoder, batch_size=batch_size), rows)
    assert_close(encode_images(pictures[::-1], encoder).flip(0), rows)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, mode):
    picture = Image.new("RGBA", (3, 1), (40, 40, 40, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.convert(mode).save(tmp_path / "picture.png")
    seen = open_image(tmp_path / "picture.png")
    assert seen.mode == "RGB" and [seen.getpixel((x, 0)) for x in range(3)] == [
        (40, 40, 40),
        (255, 255, 255),
        (40, 40, 40),
    ]


@pytest.mark.parametrize(("name", "dtype"), [("a.png", "<u2"), ("a.tif", "<u2"), ("a.tif", ">u2")])
def test_sixteen_bits_of_grey_become_eight(tmp_path, name, dtype):
    Image.fromarray(np.array([[0, 255, 256, 32_768, 65_535]], dtype)).save(tmp_path / name)
    assert np.asarray(open_image(tmp_path / name)).tolist() == [[[grey] * 3 for grey in (0, 0, 1, 128, 255)]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_picture_that_does_not_say_what_is_white_is_refused(tmp_path, mode):
    Image.new(mode, (2, 2), 1).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif can't be read \(its pixels have 32 bits, not 8 or 16\); replace"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_picture_is_turned_as_its_camera_was_held(tmp_path, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # its first row is the right side
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste("black", (0, 0, 32, 32))
    picture.save(tmp_path / name, exif=exif)
    upright = open_image(tmp_path / name)
    assert upright.size == (32, 64)
    assert upright.getpixel((16, 8)) < (9, 9, 9) and upright.getpixel((16, 56)) > (246, 246, 246)


@pytest.mark.parametrize(
    "tags",
    [
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",  # cut off
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # there is no orientation 99
    ],
)
def test_damaged_tags_leave_a_picture_as_it_lies(tmp_path, recwarn, tags):
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=tags)
    assert open_image(tmp_path / "a.jpg").size == (4, 2) and not recwarn.list


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (1, 1), (255, 0, 55, 51)).save(tmp_path / "picture.png")  # a fifth of its own colour
    assert open_image(tmp_path / "picture.png").getpixel((0, 0)) == (255, 204, 215)


def test_rows_can_be_learned_from(pictures):
    for rows in (encode_texts(TEXTS, TEXT_ENCODER), encode_images(pictures, IMAGE_ENCODER)):
        assert rows.dtype == torch.float32 and not rows.requires_grad
        layer = torch.nn.Linear(rows.shape[1], 1)
        layer(rows).sum().backward()
        assert layer.weight.grad.abs().sum() > 0


# A cache that is current is used


def test_features_are_made_once_and_then_read(shop):
    first, before = load(shop), stamp(shop / CACHE_FILE)
    again = load(shop)
    assert stamp(shop / CACHE_FILE) == before
    assert torch.equal(again.text, first.text) and torch.equal(again.image, first.image)
    assert again.fingerprint == first.fingerprint
    metadata = read_tensors(shop / CACHE_FILE)[1]
    write_tensors(shop / CACHE_FILE, {"text": torch.ones(12, 2), "image": torch.zeros(12, 3)}, metadata)
    planted = load(shop)
    assert planted.text.tolist() == [[1, 1]] * 12 and planted.image.tolist() == [[0, 0, 0]] * 12


def test_row_i_minus_1_is_item_i_whatever_the_order_of_the_file(shop):
    items = pd.read_csv(shop / "items.csv", dtype=str)
    items.sample(frac=1, random_state=1).to_csv(shop / "items.csv", index=False)
    features, titles = load(shop), dict(zip(items["item_id"], items["title"], strict=True))
    for row, item_id in enumerate(load_dataset(shop).item_ids):
        text = f"{titles[item_id]}, Acme, Things|Small"
        assert_close(features.text[row], encode_texts([text], TEXT_ENCODER)[0])
        assert_close(features.image[row], encode_images([shop / f"images/{item_id}.png"], IMAGE_ENCODER)[0])


def test_only_items_that_the_filters_leave_are_encoded(shop):
    items = pd.read_csv(shop / "items.csv", dtype=str)
    unsold = items.iloc[[0]].assign(item_id="unsold", image="images/unsold.png")
    pd.concat([unsold, items]).to_csv(shop / "items.csv", index=False)
    (shop / "images/unsold.png").write_text("not a picture", encoding="utf-8")
    assert load(shop).text.shape == load(shop).image.shape == (12, 96)


def test_what_is_neither_text_nor_picture_leaves_the_cache_current(shop):
    first, before = load(shop), stamp(shop / CACHE_FILE)
    edit(shop, 3, "description", "Another description.")
    edit(shop, 4, "image", "images/moved.png")
    (shop / "images/I004.png").rename(shop / "images/moved.png")
    items = pd.read_csv(shop / "items.csv", dtype=str)
    items.iloc[::-1].assign(price="9.99").to_csv(shop / "items.csv", index=False)
    write_ids(shop, seed=1)  # other histories
    assert load(shop).fingerprint == first.fingerprint and stamp(shop / CACHE_FILE) == before


def test_an_encoder_may_move_without_the_cache_growing_stale(shop, tmp_path):
    first, before = load(shop), stamp(shop / CACHE_FILE)
    moved = {f"{kind}_encoder": shutil.copytree(BUNDLED_DATA / "encoders" / kind, tmp_path / kind) for kind in KINDS}
    assert load(shop, **moved).fingerprint == first.fingerprint and stamp(shop / CACHE_FILE) == before


def test_the_cache_may_lie_elsewhere(shop, tmp_path):
    before, file = files_in(shop), tmp_path / "new" / "folder" / "features"
    first, stamped = load(shop, file=str(file)), stamp(file)
    assert load(shop, file=file).fingerprint == first.fingerprint and stamp(file) == stamped
    assert files_in(shop) == before and files_in(file.parent) == {"features"}
    assert load(shop).fingerprint == first.fingerprint


def test_an_ids_only_folder_has_no_features(tmp_path):
    folder = write_ids(tmp_path / "ids")
    assert load(folder) is None and load(folder, text_encoder="nobody/nothing") is None
    assert files_in(folder) == {"interactions.csv"}


def test_the_bundled_features_are_those_of_the_bundled_encoders(monkeypatch):
    dataset, file = load_dataset(BUNDLED_DATA / "shop"), BUNDLED_DATA / "shop" / CACHE_FILE
    before = stamp(file)
    forbid_writing(monkeypatch, file.parent)  # were it stale, this would say so and not mend it
    features = load_features(dataset, progress=False)
    assert stamp(file) == before and features.text.shape == features.image.shape == (dataset.num_items, 96)
    some = range(0, dataset.num_items, 60)
    texts, paths = dataset.item_texts(), dataset.image_paths()
    assert_close(features.text[some], encode_texts([texts[row] for row in some], TEXT_ENCODER))
    assert_close(features.image[some], encode_images([paths[row] for row in some], IMAGE_ENCODER))


# A stale one is made anew


@pytest.mark.parametrize(
    ("column", "kind"), [("title", "text"), ("brand", "text"), ("category", "text"), ("picture", "image")]
)
def test_features_are_made_anew_when_a_text_or_a_picture_changes(shop, column, kind):
    first, before = load(shop), stamp(shop / CACHE_FILE)
    if kind == "text":
        edit(shop, 3, column, "Another")
    else:
        Image.new("RGB", (16, 16), "red").save(shop / "images/I003.png")
    changed = load(shop)
    assert stamp(shop / CACHE_FILE) != before and changed.fingerprint != first.fingerprint
    for name in KINDS:
        distances = (getattr(changed, name) - getattr(first, name)).abs().amax(dim=1)  # (I,)
        assert (distances > 1e-3).nonzero().flatten().tolist() == ([3] if name == kind else [])
    before = stamp(shop / CACHE_FILE)
    assert load(shop).fingerprint == changed.fingerprint and stamp(shop / CACHE_FILE) == before


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_made_anew_when_an_encoders_files_change(shop, tmp_path, kind):
    encoder = shutil.copytree(BUNDLED_DATA / "encoders" / kind, tmp_path / kind)
    options = {f"{kind}_encoder": encoder}
    first = load(shop, **options)
    weights, metadata = read_tensors(encoder / "model.safetensors")
    write_tensors(encoder / "model.safetensors", {name: 1.1 * weights[name] for name in weights}, metadata)
    changed = load(shop, **options)
    assert changed.fingerprint != first.fingerprint
    assert {name: torch.equal(getattr(changed, name), getattr(first, name)) for name in KINDS} == {
        name: name != kind for name in KINDS
    }


@pytest.mark.parametrize(("kind", "name"), [("text", ROBERTA), ("image", VIT)])
def test_features_are_made_anew_by_another_encoder(shop, kind, name):
    first = load(shop)
    other = load(shop, **{f"{kind}_encoder": name})
    assert other.fingerprint != first.fingerprint and getattr(other, kind).shape == (12, 16)
    assert load(shop).fingerprint == first.fingerprint


def test_the_cache_remembers_encoders_and_inputs(shop, tmp_path):
    load(shop)
    inputs = hash_inputs(load_dataset(shop))
    assert read_tensors(shop / CACHE_FILE)[1] == {
        "text_encoder": f"text {tree_hash(TEXT_ENCODER)}",
        "image_encoder": f"image {tree_hash(IMAGE_ENCODER)}",
        "inputs": inputs,
    }
    load(shop, text_encoder=ROBERTA, image_encoder=VIT, file=tmp_path / "named")
    tensors, metadata = read_tensors(tmp_path / "named")
    assert metadata == {"text_encoder": ROBERTA, "image_encoder": VIT, "inputs": inputs}
    assert {name: (*tensor.shape, tensor.dtype) for name, tensor in tensors.items()} == dict.fromkeys(
        KINDS, (12, 16, torch.float32)
    )


def test_a_hub_name_is_remembered_as_it_is_and_a_folder_by_its_files(tmp_path):
    assert encoder_name(ROBERTA) == ROBERTA
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    name = encoder_name(str(folder))
    assert name.startswith("mine ") and encoder_name(f"{folder}/") == name
    (folder / "config.json").write_text("{ }", encoding="utf-8")
    assert encoder_name(str(folder)) != name


def test_progress_says_why_and_no_progress_says_nothing(shop, capsys):
    load(shop)
    load_features(load_dataset(shop))
    assert not capsys.readouterr().out
    edit(shop, 0, "title", "Another")
    load_features(load_dataset(shop))
    assert capsys.readouterr().out == "Encoding 12 items: texts or pictures have changed.\n"
    load_features(load_dataset(shop), text_encoder=ROBERTA)
    assert capsys.readouterr().out == "Encoding 12 items: texts were encoded by another encoder.\n"
    load_features(load_dataset(shop), text_encoder=ROBERTA, image_encoder=VIT)
    assert capsys.readouterr().out == "Encoding 12 items: pictures were encoded by another encoder.\n"


# What can't be is refused in one sentence, and nothing is written


def test_a_read_only_folder_is_refused_unless_its_cache_is_current_or_elsewhere(shop, tmp_path, monkeypatch):
    before = files_in(shop)
    with monkeypatch.context() as patch:
        forbid_writing(patch, shop)
        sentence = refused(shop)
        assert sentence.startswith(f"{shop / CACHE_FILE} can't be written, and there is no {CACHE_FILE} yet")
        assert "--features" in sentence and files_in(shop) == before
        assert load(shop, file=tmp_path / "elsewhere").text.shape == (12, 96)
    first, before = load(shop), stamp(shop / CACHE_FILE)
    forbid_writing(monkeypatch, shop)
    assert load(shop).fingerprint == first.fingerprint
    edit(shop, 3, "title", "Another")
    assert "can't be written, and texts or pictures have changed" in refused(shop)
    assert stamp(shop / CACHE_FILE) == before


@pytest.mark.parametrize(
    ("names", "metadata"),
    [
        (("weight",), {}),
        (("text", "image"), {}),
        (("text", "image"), {"text_encoder": "one", "inputs": "none"}),
        (("text",), {"text_encoder": "one", "image_encoder": "two", "inputs": "none"}),
        (("text", "image", "sound"), {"text_encoder": "one", "image_encoder": "two", "inputs": "none"}),
    ],
)
def test_a_safetensors_file_that_holds_no_features_is_refused_and_left_alone(shop, names, metadata):
    write_tensors(shop / CACHE_FILE, {name: torch.ones(12, 2) for name in names}, metadata)
    before = stamp(shop / CACHE_FILE)
    sentence = refused(shop)
    assert sentence.startswith(f"{shop / CACHE_FILE} holds no features") and stamp(shop / CACHE_FILE) == before


def test_a_truncated_cache_is_to_be_deleted_and_then_is_made_anew(shop):
    load(shop)
    whole = (shop / CACHE_FILE).read_bytes()
    (shop / CACHE_FILE).write_bytes(whole[:-9])
    assert refused(shop).endswith("; delete it, and it is made anew.")
    (shop / CACHE_FILE).unlink()
    load(shop)
    assert (shop / CACHE_FILE).read_bytes() == whole


def test_a_stale_cache_in_a_read_only_folder_is_refused_though_the_file_itself_is_not(shop, monkeypatch):
    load(shop)
    before = stamp(shop / CACHE_FILE)
    edit(shop, 3, "title", "Another")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != shop)
    assert "can't be written" in refused(shop) and stamp(shop / CACHE_FILE) == before


def test_a_folder_in_the_place_of_the_cache_is_refused(shop, tmp_path):
    assert str(tmp_path) in refused(shop, file=tmp_path)


def test_the_global_generator_is_left_alone(shop):
    before = torch.get_rng_state()
    load(shop, text_encoder=ROBERTA, image_encoder=VIT)  # neither holds the pooler that its architecture has
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_that_is_no_safetensors_file_is_refused_and_left_alone(shop):
    (shop / CACHE_FILE).write_text("my notes", encoding="utf-8")
    before = stamp(shop / CACHE_FILE)
    assert str(shop / CACHE_FILE) in refused(shop) and stamp(shop / CACHE_FILE) == before


PNG = (BUNDLED_DATA / "shop" / "images" / "T0001.png").read_bytes()


def avif() -> bytes:
    """A little picture."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "AVIF")
    return file.getvalue()


UNREADABLE = {
    "an AVIF without its item": avif().replace(b"pitm", b"xxxx"),
    "a truncated PNG": PNG[: len(PNG) // 2],
    "a PNG of a wrong length": PNG[:96] + b"\x5b" + PNG[97:],
    "a PNG's first bytes": PNG[:8],
    "a PNG of a short header": PNG[:8] + b"\0\0\0\x05IHDR\0\0\0\x10\0\xd5\x80\x92m",
    "a JPEG's first bytes": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01",
    "a text": b"item_id,title\n",
    "nothing": b"",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_picture_that_cannot_be_read_is_named(shop, content):
    picture = shop / "images" / "I003.png"
    picture.write_bytes(content)
    before = files_in(shop)
    assert refused(shop).startswith(f"{picture} can't be read (") and files_in(shop) == before


def test_a_picture_too_large_to_be_one_is_named(shop, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    assert refused(shop).startswith(f"{shop / 'images' / 'I000.png'} can't be read (")


def test_a_picture_over_the_limit_is_named_with_its_size_before_it_is_decoded(tmp_path, recwarn):
    side = 9_500  # over the limit here, and over that at which Pillow warns
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
    content = PNG[:12] + header + zlib.crc32(header).to_bytes(4, "big") + PNG[33:]
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bomb\.png can't be read \(it has 9500 x 9500 pixels, more than 50,0"):
        open_image(tmp_path / "bomb.png")
    assert not recwarn.list


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    with pytest.raises(InputError, match="it is not a picture"):
        open_image(tmp_path / "a.eps")


def test_pictures_are_in_memory_one_at_a_time(tmp_path, pictures):
    alive, most = [], []

    def processor(image, return_tensors):
        alive.append(weakref.ref(image))
        most.append(sum(reference() is not None for reference in alive))
        return {"pixel_values": torch.ones(1, 3, 2, 2)}

    assert read_pixels(processor, pictures).shape == (len(pictures), 3, 2, 2)
    assert max(most) <= 2, "the one before may still be named"


def test_an_encoder_that_is_pickled_is_refused(tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(IMAGE_ENCODER, folder)
    weights, _ = read_tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="can't be loaded"):
        encode_images([BUNDLED_DATA / "shop" / "images" / "T0001.png"], folder)


def test_an_old_cache_survives_a_picture_that_cannot_be_read(shop):
    load(shop)
    before = stamp(shop / CACHE_FILE)
    (shop / "images" / "I003.png").write_bytes(b"")
    refused(shop)
    assert stamp(shop / CACHE_FILE) == before and not list(shop.glob("*.partial"))


def test_an_interrupted_encoding_goes_on_where_it_stopped(shop, monkeypatch):
    """A picture in the middle is damaged, then replaced: of the others, none is encoded twice."""
    whole, picture = load(shop), shop / "images" / "I007.png"
    (shop / CACHE_FILE).unlink()
    content, opened = picture.read_bytes(), []
    monkeypatch.setattr("imecd_lite.encoders.KEEP_SECONDS", -1)
    one_at_a_time(monkeypatch, opened)
    picture.write_bytes(b"")
    refused(shop)
    assert {path.name for path in shop.glob("*.partial")} == {"features-pictures.partial", "features-texts.partial"}
    assert opened.pop() == picture and len(opened) == 7
    picture.write_bytes(content)
    again = load(shop)
    assert len(opened) == len(set(opened)) == 12 and not list(shop.glob("*.partial"))
    assert_close(again.text, whole.text)
    assert_close(again.image, whole.image)


def test_of_two_commands_that_encode_the_same_one_waits_and_reads(shop, monkeypatch):
    encoded, inside = [], threading.Event()

    def slowly(*given, **how):
        inside.set()
        encoded.append(encode_texts(*given, **how))
        time.sleep(0.3)
        return encoded[-1]

    monkeypatch.setattr("imecd_lite.encoders.encode_texts", slowly)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(load, shop)
        inside.wait()
        second = pool.submit(load, shop)
    assert len(encoded) == 1 and torch.equal(first.result().text, second.result().text)


def test_a_folder_in_place_of_a_feature_file_is_not_to_be_deleted(shop):
    assert refused(shop, file=shop) == f"{shop} is a folder; name a file, such as {shop / CACHE_FILE}."


def test_too_little_memory_is_not_the_encoders_fault(shop, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("imecd_lite.encoders.mean_pool", fail)
    with pytest.raises(torch.OutOfMemoryError):
        load(shop)


def test_what_another_encoder_has_kept_is_not_taken(shop, monkeypatch):
    whole, picture = load(shop, image_encoder=VIT), shop / "images" / "I011.png"
    (shop / CACHE_FILE).unlink()
    content = picture.read_bytes()
    monkeypatch.setattr("imecd_lite.encoders.KEEP_SECONDS", -1)
    one_at_a_time(monkeypatch, [])
    picture.write_bytes(b"")
    refused(shop)
    picture.write_bytes(content)
    assert_close(load(shop, image_encoder=VIT).image, whole.image)


def one_at_a_time(monkeypatch, opened):
    """Encode pictures in batches of one, noting each that is opened."""
    monkeypatch.setattr("imecd_lite.encoders.encode_images", functools.partial(encode_images, batch_size=1))
    monkeypatch.setattr("imecd_lite.encoders.open_image", lambda path: opened.append(path) or open_image(path))


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_that_is_not_there_is_named(shop, tmp_path, kind):
    empty = tmp_path / "empty"
    empty.mkdir()
    other_kind = BUNDLED_DATA / "encoders" / {"text": "image", "image": "text"}[kind]
    weightless = shutil.copytree(BUNDLED_DATA / "encoders" / kind, tmp_path / "weightless")
    (weightless / "model.safetensors").unlink()
    damaged = shutil.copytree(BUNDLED_DATA / "encoders" / kind, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:-1])
    before = files_in(shop)
    folders = (tmp_path / "missing", empty, other_kind, weightless, damaged)
    for encoder in ("nobody/no-such-encoder", "no-such-encoder", *folders):
        sentence = refused(shop, **{f"{kind}_encoder": encoder})
        assert sentence.startswith(f"The encoder {str(encoder)!r} can't be loaded (")
    assert files_in(shop) == before


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("text", "tokenizer.json", "{}"),
        ("text", "tokenizer.json", "[]"),
        ("text", "tokenizer_config.json", "[]"),
        ("image", "preprocessor_config.json", "{}"),
        ("image", "preprocessor_config.json", "[]"),
    ],
)
def test_an_encoder_with_a_damaged_file_is_named(shop, tmp_path, kind, name, content):
    encoder, before = shutil.copytree(BUNDLED_DATA / "encoders" / kind, tmp_path / kind), files_in(shop)
    (encoder / name).write_text(content, encoding="utf-8")
    assert refused(shop, **{f"{kind}_encoder": encoder}).startswith(f"The encoder {str(encoder)!r} can't be ")
    assert files_in(shop) == before


def save_encoder(folder: Path, kind: str, model: PreTrainedModel) -> Path:
    """The bundled encoder of this kind with another model."""
    model.save_pretrained(shutil.copytree(BUNDLED_DATA / "encoders" / kind, folder))
    return folder


def broken_encoders(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Kinds and folders of encoders that are none or of no use, and why."""
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    clip = CLIPModel(CLIPConfig(text_config=small, vision_config={**small, "image_size": 64}))
    yield "image", save_encoder(folder / "clip", "image", clip), "'NoneType' object has no attribute 'shape'"
    resnet = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
    yield "image", save_encoder(folder / "resnet", "image", resnet), "must be (B, D) and finite, got (12, 16, 16)"
    vit = AutoModel.from_pretrained(IMAGE_ENCODER)
    vit.layernorm.weight.data.fill_(torch.nan)
    yield "image", save_encoder(folder / "nan", "image", vit), "finite, got (12, 96) with infinite or no numbers"
    roberta = RobertaModel(RobertaConfig(vocab_size=1500, max_position_embeddings=5, **small))
    yield "text", save_encoder(folder / "short", "text", roberta), "is out of bounds for dimension 1 with size 5"


def test_an_encoder_that_is_of_no_use_is_named_and_nothing_is_cached(shop, tmp_path):
    before = files_in(shop)
    for kind, encoder, why in broken_encoders(tmp_path):
        sentence = refused(shop, **{f"{kind}_encoder": encoder})
        assert sentence.startswith(f"The encoder {str(encoder)!r} can't be used (") and why in sentence
    assert files_in(shop) == before
