"""Train the tiny encoders that are bundled, a small RoBERTa and a small ViT, from texts and pictures without labels.

They stand in for ``FacebookAI/roberta-base`` and ``google/vit-base-patch16-224`` where there is no network.
"""

# B batch, T tokens, D hidden, P side of a picture

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from imecd_lite.dataset import Dataset
from imecd_lite.encoders import MAX_TOKENS, mean_pool, read_pixels
from imecd_lite.errors import InputError
from imecd_lite.prepare import whole_folder

HIDDEN_SIZE, NUM_HEADS = 96, 4
VOCABULARY_SIZE, MASK_SHARE = 1500, 0.3
IMAGE_SIZE, PATCH_SIZE = 64, 8
TEMPERATURE = 0.1  # of the contrastive losses


def pretrain_encoders(
    dataset: Dataset, output: Path | str, seed: int = 0, text_steps: int = 600, image_steps: int = 400
) -> None:
    """Train both encoders and write them to ``output/text`` and ``output/image`` in Hugging Face format.

    Args:
        dataset: with ``items.csv``; its histories are not looked at.
        output: the folder for both; must not exist, or be empty.
        text_steps, image_steps: how long; the defaults take a minute or two each on two cores.

    Raises:
        InputError: the dataset is ids-only, or ``output`` holds something.
    """
    if dataset.items is None:
        raise InputError(f"{dataset.path} has no items.csv; encoders learn from its titles and pictures.")
    sentences = dataset.item_texts() + [text for text in dataset.items["description"] if text]
    with whole_folder(Path(output)) as folder, torch.random.fork_rng():
        torch.manual_seed(seed)
        pretrain_text_encoder(sentences, folder / "text", text_steps)
        torch.manual_seed(seed)
        pretrain_image_encoder(dataset.image_paths(), folder / "image", image_steps)


def train_tokenizer(sentences: list[str]):
    """A byte-level BPE tokenizer with RoBERTa's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        sentences,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=MAX_TOKENS,
    )


def pretrain_text_encoder(sentences: list[str], output: Path, steps: int, batch_size: int = 64) -> None:
    """Masked language modelling on two maskings of each text, which are also to be alike as a whole."""
    from transformers import RobertaConfig, RobertaForMaskedLM, RobertaModel

    tokenizer = train_tokenizer(sentences)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=NUM_HEADS,
        intermediate_size=2 * HIDDEN_SIZE,
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    model = RobertaForMaskedLM(config).train()
    optimizer, schedule = make_optimizer(model.parameters(), 2e-3, steps)
    batch_size = min(batch_size, len(sentences))
    for _ in tqdm(range(steps), desc="text encoder", unit="step"):
        chosen = torch.randperm(len(sentences))[:batch_size].tolist()
        views = 2 * [sentences[i] for i in chosen]
        tokens = tokenizer(views, padding=True, truncation=True, return_tensors="pt")
        input_ids, attention_mask = tokens["input_ids"], tokens["attention_mask"]  # (2B, T)
        hidden = (torch.rand(input_ids.shape) < MASK_SHARE) & (input_ids > 4)  # special tokens are never hidden
        masked = input_ids.masked_fill(hidden, tokenizer.mask_token_id)
        states = model.roberta(masked, attention_mask=attention_mask).last_hidden_state  # (2B, T, D)
        guesses = model.lm_head(states[hidden])  # (hidden tokens, vocabulary)
        loss = F.cross_entropy(guesses, input_ids[hidden]) + 0.5 * view_loss(mean_pool(states, attention_mask))
        take_step(loss, optimizer, schedule)
    encoder = RobertaModel(config)
    encoder.load_state_dict(model.roberta.state_dict(), strict=False)  # all but the pooler, which nothing uses
    encoder.save_pretrained(output)
    tokenizer.save_pretrained(output)


def pretrain_image_encoder(paths: list[Path], output: Path, steps: int, batch_size: int = 128) -> None:
    """Contrastive learning: two distorted views of a picture are to be more alike than views of two pictures."""
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    processor = ViTImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    pictures = read_pixels(processor, paths)  # (n, 3, P, P)
    config = ViTConfig(
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=3,
        num_attention_heads=NUM_HEADS,
        intermediate_size=2 * HIDDEN_SIZE,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    model = ViTModel(config).train()
    head = nn.Sequential(nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE), nn.GELU(), nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE))
    optimizer, schedule = make_optimizer([*model.parameters(), *head.parameters()], 1e-3, steps)
    batch_size = min(batch_size, len(pictures))
    for _ in tqdm(range(steps), desc="image encoder", unit="step"):
        batch = pictures[torch.randperm(len(pictures))[:batch_size]]
        views = torch.cat([distort(batch), distort(batch)])  # (2B, 3, P, P)
        take_step(view_loss(head(model(views).last_hidden_state[:, 0])), optimizer, schedule)
    model.save_pretrained(output)
    processor.save_pretrained(output)


def view_loss(views: torch.Tensor) -> torch.Tensor:
    """InfoNCE over the two views of each input, rows i and B + i of ``views`` (2B, D)."""
    unit = F.normalize(views, dim=-1)
    similarity = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-torch.inf)  # (2B, 2B)
    return F.cross_entropy(similarity, torch.arange(len(views)).roll(len(views) // 2))


def distort(pictures: torch.Tensor) -> torch.Tensor:
    """Move, zoom and mirror each picture (B, 3, P, P) at random, and shift the strength of its colours."""
    size = len(pictures)
    zoom = 0.65 + 0.45 * torch.rand(size)
    mirror = torch.where(torch.rand(size) < 0.5, -1.0, 1.0)
    zero, (dx, dy) = torch.zeros(size), 0.3 * (torch.rand(2, size) - 0.5)
    affine = torch.stack([zoom * mirror, zero, dx, zero, zoom, dy], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, pictures.shape, align_corners=False)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return moved * (0.8 + 0.4 * torch.rand(size, 3, 1, 1)) + 0.2 * (torch.rand(size, 3, 1, 1) - 0.5)


def make_optimizer(parameters: Iterable[nn.Parameter], peak: float, steps: int) -> tuple:
    """AdamW, and a learning rate that rises to ``peak`` and falls to zero within ``steps``."""
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=steps)


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, schedule) -> None:
    """One step of the optimiser and of its learning rate."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
