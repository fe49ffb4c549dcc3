"""Titles and pictures -> frozen feature tables, the inputs of Eq. 1 and 2 (section III-B).

``FacebookAI/roberta-base`` and ``google/vit-base-patch16-224`` are the paper's encoders; name them where there is a
network or a cache. The bundled tiny encoders of the same architectures work offline, through the same code.
"""

# I items, n inputs, B batch, T tokens, D encoder's hidden size

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from safetensors import SafetensorError
from tqdm.auto import tqdm

from imecd_lite.config import BUNDLED_DATA
from imecd_lite.dataset import Dataset
from imecd_lite.errors import InputError, is_out_of_memory
from imecd_lite.files import hold, read_tensors, tree_hash, write_tensors

TEXT_ENCODER = BUNDLED_DATA / "encoders" / "text"
IMAGE_ENCODER = BUNDLED_DATA / "encoders" / "image"
CACHE_FILE = "features.safetensors"
MAX_TOKENS = 128
"""Longer texts are cut."""
KEEP_SECONDS = 60
"""So often the rows that are encoded are written, so that an interrupted call loses no more."""
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pictures of these formats are opened; others, such as PostScript, would start foreign programs."""
MAX_PIXELS = 50_000_000
"""Larger pictures are refused: opening one of this size takes about 700 MB of memory."""
FOREIGN_FAULTS = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    SafetensorError,
)
"""What damaged files and models of other kinds make transformers raise."""
TOO_DEEP = "its pixels have 32 bits, not 8 or 16"
"""Why a picture is refused that doesn't say which of its numbers is white."""


@dataclass(frozen=True)
class Features:
    """Frozen features of a dataset's items, row i - 1 for item i."""

    text: torch.Tensor  # (I, d_txt) float32
    image: torch.Tensor  # (I, d_img) float32
    fingerprint: str  # of the inputs and the encoders; a checkpoint remembers it


def load_features(
    dataset: Dataset,
    text_encoder: str | Path | None = None,
    image_encoder: str | Path | None = None,
    file: Path | str | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Features | None:
    """The features of a dataset's items, from the cache if it is current, else encoded and cached.

    Args:
        text_encoder: hub name or folder; the bundled one when None.
        image_encoder: likewise.
        file: the cache, ``features.safetensors`` in the dataset folder when None. A cache made from other texts,
            pictures or encoders is rebuilt. What an interrupted call has encoded lies beside it until then.
        device: where to encode.
        progress: show bars.

    Returns:
        None for an ids-only dataset.

    Raises:
        InputError: a picture can't be read, an encoder is not to be had or of no use, or the cache can't be written.
    """
    if dataset.items is None:
        return None
    text_encoder, image_encoder = str(text_encoder or TEXT_ENCODER), str(image_encoder or IMAGE_ENCODER)
    cache = Path(file or dataset.path / CACHE_FILE)
    wanted = {
        "text_encoder": encoder_name(text_encoder),
        "image_encoder": encoder_name(image_encoder),
        "inputs": hash_inputs(dataset),
    }
    tensors, stale = read_cache(cache, wanted)
    if stale:
        if not os.access(nearest_existing(cache.absolute().parent), os.W_OK):
            raise InputError(f"{cache} can't be written, and {stale}; name another place with --features FILE.")
        with hold(cache, wait=True):  # another command may be encoding the same
            tensors, stale = read_cache(cache, wanted)
            if stale:
                if progress:
                    print(f"Encoding {dataset.num_items:,} items: {stale}.")
                texts, pictures = (cache.with_name(f"{cache.stem}-{what}.partial") for what in ("texts", "pictures"))
                how = {"device": device, "progress": progress}
                tensors = {
                    "text": encode_texts(dataset.item_texts(), text_encoder, **how, keep=texts),
                    "image": encode_images(dataset.image_paths(), image_encoder, **how, keep=pictures),
                }
                write_tensors(cache, tensors, wanted)
                texts.unlink(missing_ok=True)
                pictures.unlink(missing_ok=True)
    fingerprint = hashlib.sha256("\n".join(wanted.values()).encode()).hexdigest()[:16]
    return Features(tensors["text"].float(), tensors["image"].float(), fingerprint)


def read_cache(cache: Path, wanted: dict[str, str]) -> tuple[dict[str, torch.Tensor], str]:
    """The cached tensors, and why they are not those that are ``wanted``: the end of a sentence, empty if they are."""
    if not cache.exists():
        return {}, f"there is no {cache.name} yet"
    if cache.is_dir():
        raise InputError(f"{cache} is a folder; name a file, such as {cache / CACHE_FILE}.")
    tensors, metadata = read_tensors(cache, "delete it, and it is made anew")
    if set(tensors) != {"text", "image"} or not set(wanted) <= set(metadata):
        raise InputError(f"{cache} holds no features; move it away, or name another place with --features FILE.")
    reasons = {
        "text_encoder": "texts were encoded by another encoder",
        "image_encoder": "pictures were encoded by another encoder",
        "inputs": "texts or pictures have changed",
    }
    return tensors, next((reason for name, reason in reasons.items() if metadata[name] != wanted[name]), "")


def nearest_existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def encoder_name(encoder: str) -> str:
    """What the cache remembers an encoder by: a hub name as it is, a folder by its name and the hash of its files."""
    folder = Path(encoder)
    return f"{folder.name} {tree_hash(folder)}" if folder.is_dir() else encoder


def hash_inputs(dataset: Dataset) -> str:
    """A hash of item ids, texts and the pictures' bytes, in index order."""
    digest = hashlib.sha256()
    for item_id, text, path in zip(dataset.item_ids, dataset.item_texts(), dataset.image_paths(), strict=True):
        digest.update(f"{len(item_id)}:{item_id}{len(text)}:{text}{hash_input(path)}".encode())
    return digest.hexdigest()


def hash_input(value: str | Path) -> str:
    """sha256 of a text, or of a picture's bytes."""
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).hexdigest()
    with value.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_texts(
    texts: Sequence[str],
    encoder: str | Path,
    device: str = "cpu",
    batch_size: int = 64,
    progress: bool = False,
    keep: Path | None = None,
) -> torch.Tensor:
    """Mean of the last hidden states over the tokens of each text, (n, D) float32 on the CPU.

    Args:
        keep: a file for the rows, written once a minute; those of an earlier call with this encoder are taken from it.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = load_pretrained(AutoTokenizer, encoder)
    model = load_pretrained(AutoModel, encoder, use_safetensors=True).to(device).eval()

    def encode(batch: list[str]) -> torch.Tensor:
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt").to(device)
        return mean_pool(model(**tokens).last_hidden_state, tokens["attention_mask"])  # (B, D)

    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # little padding
    encoded = in_batches(encode, [texts[row] for row in order], encoder, batch_size, "texts", progress, keep)
    return torch.empty_like(encoded).index_copy_(0, torch.tensor(order), encoded)


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of the states (B, T, D) over each text's own tokens, (B, D)."""
    mask = attention_mask[..., None]
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def encode_images(
    paths: Sequence[Path],
    encoder: str | Path,
    device: str = "cpu",
    batch_size: int = 64,
    progress: bool = False,
    keep: Path | None = None,
) -> torch.Tensor:
    """The last hidden state of each picture's class token, (n, D) float32 on the CPU; ``keep`` as for texts."""
    from transformers import AutoImageProcessor, AutoModel

    processor = load_pretrained(AutoImageProcessor, encoder, backend="pil")
    model = load_pretrained(AutoModel, encoder, use_safetensors=True).to(device).eval()

    def encode(batch: list[Path]) -> torch.Tensor:
        pixels = read_pixels(processor, batch)  # (B, 3, H, W)
        return model(pixels.to(device)).last_hidden_state[:, 0]  # (B, D)

    return in_batches(encode, list(paths), encoder, batch_size, "pictures", progress, keep)


def in_batches(
    encode: Callable[[list], torch.Tensor],
    inputs: list,
    encoder: str | Path,
    batch_size: int,
    what: str,
    progress: bool,
    keep: Path | None,
) -> torch.Tensor:
    """``encode`` over batches of ``inputs``, joined, (n, D); ``InputError`` names an ``encoder`` that is of no use."""
    keys, name = [hash_input(value) for value in inputs], encoder_name(str(encoder))
    rows = read_kept(keep, name)
    missing = [(key, value) for key, value in zip(keys, inputs, strict=True) if key not in rows]
    done, written = len(inputs) - len(missing), time.monotonic()
    with torch.inference_mode(), tqdm(total=len(inputs), initial=done, desc=what, disable=not progress) as bar:
        for start in range(0, len(missing), batch_size):
            batch_keys, batch = zip(*missing[start : start + batch_size], strict=True)
            try:
                encoded = encode(list(batch)).float().cpu()
                shape, finite = tuple(encoded.shape), encoded.isfinite().all()
                if shape[:-1] != (len(batch),) or not finite:
                    found = f"{shape} with {'finite' if finite else 'infinite or no'} numbers"
                    raise ValueError(f"features must be (B, D) and finite, got {found}")
            except InputError:  # of a picture
                raise
            except FOREIGN_FAULTS as error:
                if is_out_of_memory(error):
                    raise
                raise InputError(
                    f"The encoder {str(encoder)!r} can't be used ({why(error)}); give one like RoBERTa for texts or "
                    "like ViT for pictures."
                ) from None
            rows.update(zip(batch_keys, encoded, strict=True))
            bar.update(len(batch))
            if keep and time.monotonic() - written > KEEP_SECONDS:
                write_tensors(keep, {"rows": torch.stack([*rows.values()])}, {"encoder": name, "keys": " ".join(rows)})
                written = time.monotonic()
    return torch.stack([rows[key] for key in keys])


def read_kept(keep: Path | None, encoder: str) -> dict[str, torch.Tensor]:
    """The rows (D) that are kept, by the hash of their inputs; none where they are another encoder's."""
    if keep is None or not keep.exists():
        return {}
    tensors, metadata = read_tensors(keep, "delete it, and it is made anew")
    if metadata.get("encoder") != encoder:
        return {}
    return dict(zip(metadata["keys"].split(), tensors["rows"], strict=True))


def read_pixels(processor: Callable, paths: Sequence[Path]) -> torch.Tensor:
    """What an image processor makes of pictures, (B, 3, H, W); one at a time is in memory at its own size."""
    return torch.cat([processor(open_image(path), return_tensors="pt")["pixel_values"] for path in paths])


def open_image(path: Path) -> Image.Image:
    """A picture as RGB, transparent parts white; ``InputError`` names one that can't be read or is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is less
            warnings.simplefilter("ignore", UserWarning)  # damaged tags
            image = Image.open(path, formats=PICTURE_FORMATS)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            if image.mode in ("I", "F"):
                raise ValueError(TOO_DEEP)
            turned = orientation_of(image)
            if image.mode.startswith("I;16"):  # convert would make all but black white
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            rgba = image.convert("RGBA")
            rgba.info.clear()  # of all tags but this one, any of which may be damaged
            rgba.getexif()[ExifTags.Base.Orientation] = turned
            rgba = ImageOps.exif_transpose(rgba)
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        reason = "it is not a picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{path} can't be read ({reason}); replace the picture or empty its field.") from None
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def orientation_of(image: Image.Image) -> int:
    """How a viewer is to turn the picture upright, 1 to 8 as EXIF counts; 1, not at all, where nothing can be read."""
    image.load()  # which turns a TIFF, and takes out the tag
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # damaged tags
        return image.getexif().get(ExifTags.Base.Orientation, 1)


def load_pretrained(auto_class: type, encoder: str | Path, **options: object) -> object:
    """``auto_class.from_pretrained``; ``InputError`` when there is no such folder and the hub can't be reached."""
    try:
        with torch.random.fork_rng(devices=[]):  # a checkpoint without pooler, as the hub's are, gets a random one
            return auto_class.from_pretrained(str(encoder), **options)
    except FOREIGN_FAULTS as error:
        raise InputError(
            f"The encoder {str(encoder)!r} can't be loaded ({why(error)}); give a folder in Hugging Face format, "
            "or a hub name while there is a network."
        ) from None


def why(error: Exception) -> str:
    """What an exception says, for a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
