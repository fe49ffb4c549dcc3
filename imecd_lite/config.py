"""Every setting, with the paper's value and its place in the paper beside it."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path

from imecd_lite.errors import InputError

BUNDLED_DATA = Path(__file__).resolve().parents[1] / "data"
"""Where the shop, the tiny encoders and the trained checkpoints lie in a checkout."""

MODALITIES = ("id", "text", "image")
"""The paper's id, txt and img, in the order of Eq. 19."""


@dataclass(frozen=True)
class IMECDConfig:
    """The model's settings. Defaults are the paper's (section IV-A4), a comment gives the place, but for eleven.

    The eleven, ``dropout`` and those from ``denoiser`` to ``repeat_bias``, depart from the letter of the paper, which
    ``PRESETS["literal"]`` restores; the README has what they change, measured.

    What each does was measured on the validation items of the shop, seed 0, N@10 unless it says otherwise, beside the
    default of that day.

    - ``denoiser``: as 0.001 of every position x_t is not heard, and one reverse step recommends what T do (Jaccard
      overlap of the top ten 0.996). As a token that attends to the sequence it is (0.89), and a step costs one token
      where it cost the whole sequence.
    - ``unit_variance``: the schedule's noise has unit variance, so has now, over the catalogue, what it is added to.
      Features, too, are brought to zero mean and unit variance. Scores are divided
      by the root of d. Without it text and image codes collapse (perplexity 3.5 and 2.0 of 24, not 22).
    - ``lambda_gate``: gates stay flat: an item's strongest expert is hardly stronger than the others (entropy 0.97 and
      0.98 of 1, text and picture). They now also learn to name the group an item is in when the ID embeddings are
      clustered (0.62 and 0.68, five seeds).
    - ``code_decay``, ``lambda_match``, ``code_lifetime``: the selector of Eq. 7 is given no reason to prefer the code
      that is like the sequence, and by text and picture all sequences end up with one code (perplexity 6, 1 and 1). It
      now learns to name the nearest; codes move slowly, and those that nobody chooses start afresh (22, 22, 21).
    - ``detach_target``: Eq. 14 can be made small by drawing all items together; only the prediction is to move. The
      ranking hardly hears of it (0.292 and 0.294).
    - ``own_noise``: in sampling the denoiser sees what it made itself; in training it saw the true item, noised. With
      ``own_noise`` above 0 it also predicts from pure noise at T, and most x_t are noised from that prediction. At 0.8
      thirty-two steps are level with one, or a trace worse (-1.1% to -0.1%, five seeds).
    - ``feature_weight``: text and pictures know less of an item than the shoppers do; counted in full they cost more
      than they tell (0.286 and 0.300).
    - ``dropout``: on small data the ID modality learns its histories by heart; 0.1 and 0.2 are within a seed's noise.
    - ``repeat_bias``: a product of embeddings can hardly say "not this very toy again" without saying it of all that
      are like it. One learned number for each modality says it (0.207 and 0.291).

    Raises ``InputError`` when a value is impossible.
    """

    hidden_size: int = 128  # d, IV-A4
    max_length: int = 50  # L - 1, IV-A4
    num_experts: int = 8  # N, Fig. 4 (best on Games, second best on Toys)
    codebook_size: int = 24  # Z, Fig. 5
    selector_size: int = 64  # hidden units of the MLP in Eq. 7 (open in the paper)
    lambda_q: float = 0.7  # injection strength of Eq. 9, Fig. 6
    temperature: float = 0.1  # tau of Eq. 8, IV-A4
    num_train_timesteps: int = 32  # T, IV-A4
    beta_schedule: str = "truncated_linear"  # IV-A4; its ends are open, see `make_betas`
    noise_scale: float = 0.001  # weight of x_t + time embedding in Eq. 13 (open; DiffuRec's and DiQDiff's value)
    num_attention_heads: int = 4  # IV-A4
    num_id_layers: int = 4  # IV-A4
    num_text_layers: int = 1  # IV-A4
    num_image_layers: int = 1  # IV-A4
    dropout: float = 0.2  # denoiser and the items of histories, before Eq. 7; literal: 0.1, IV-A4
    lambda_c: float = 0.1  # contrastive weight of Eq. 22, Fig. 6 (open; the least of IV-A4)
    denoiser: str = "token"  # Eq. 13: x_t as a token that reads the sequence; literal: "add" it to every position
    unit_variance: bool = True  # item representations normalised, so that the schedule's signal-to-noise ratio is true
    lambda_gate: float = 1.5  # weight of the gates' loss for the group of an item's ID; literal: 0
    code_decay: float = 0.9  # share of its old value that a code keeps in Eq. 10; literal: 0
    lambda_match: float = 1.0  # weight of the selector's loss for the nearest code; literal: 0
    code_lifetime: int = 20  # steps after which a code that nobody chose starts afresh; literal: 0, never
    detach_target: bool = True  # Eq. 14 leaves x_0 alone; literal: False, the loss also pulls x_0 to its prediction
    own_noise: float = 0.8  # share of x_t noised from the model's own prediction at T; literal: 0
    feature_weight: float = 0.25  # of the text and the image scores in Eq. 19, the ID's being 1; literal: 1
    repeat_bias: bool = True  # Eq. 19 plus a learned number for the items of the history; literal: False
    use_experts: bool = True  # False: "w/o ID-MoE" of Table III
    use_codebooks: bool = True  # False: "w/o MS-VQ"
    use_contrastive: bool = True  # False: "w/o CDG_CL"
    use_text: bool = True  # False: "w/o Text"
    use_image: bool = True  # False: "w/o Image"

    def __post_init__(self) -> None:
        check_types(self)
        for name in (
            "hidden_size",
            "max_length",
            "num_experts",
            "codebook_size",
            "selector_size",
            "num_train_timesteps",
            "num_attention_heads",
            "num_id_layers",
            "num_text_layers",
            "num_image_layers",
        ):
            check(self, name, getattr(self, name) >= 1, "a whole number of at least 1")
        check(self, "temperature", self.temperature > 0, "a number above 0")
        check(self, "code_lifetime", self.code_lifetime >= 0, "a whole number of at least 0")
        check(self, "code_decay", 0 <= self.code_decay < 1, "a number from 0 up to, but not including, 1")
        check(self, "own_noise", 0 <= self.own_noise <= 1, "a number from 0 to 1")
        check(self, "denoiser", self.denoiser in ("token", "add"), "token or add")
        check(self, "dropout", 0 <= self.dropout < 1, "a number from 0 up to, but not including, 1")
        for name in ("lambda_q", "lambda_c", "noise_scale", "lambda_match", "lambda_gate", "feature_weight"):
            check(self, name, getattr(self, name) >= 0, "a number of at least 0")
        check(self, "beta_schedule", self.beta_schedule in BETA_SCHEDULES, f"one of {', '.join(BETA_SCHEDULES)}")
        check(
            self,
            "num_attention_heads",
            self.hidden_size % self.num_attention_heads == 0,
            f"a divisor of hidden_size, {self.hidden_size}",
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in use, a subset of ``MODALITIES`` in its order."""
        used = {"id": True, "text": self.use_text, "image": self.use_image}
        return tuple(name for name in MODALITIES if used[name])

    @property
    def num_layers(self) -> dict[str, int]:
        """Transformer layers of each modality's denoiser."""
        return {"id": self.num_id_layers, "text": self.num_text_layers, "image": self.num_image_layers}


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Raises ``InputError`` when a value is impossible."""

    epochs: int = 10  # at most; early stopping may end sooner
    batch_size: int = 256  # the paper's 1,280 (IV-A4) leaves a dozen steps an epoch on small data
    learning_rate: float = 0.001  # IV-A4, Adam
    max_prefixes_per_user: int | None = 10  # prefixes of one history drawn afresh for each epoch; None: all of them
    patience: int = 5  # epochs without a better validation N@10 before training stops
    seed: int = 0
    checkpoint_dtype: str = "float32"  # float16 halves model.safetensors

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epochs", "batch_size", "patience"):
            check(self, name, getattr(self, name) >= 1, "a whole number of at least 1")
        check(self, "learning_rate", self.learning_rate > 0, "a number above 0")
        check(self, "seed", self.seed >= 0, "a whole number from 0 to 2147483647")
        limit = self.max_prefixes_per_user
        check(self, "max_prefixes_per_user", limit is None or limit >= 1, "a whole number of at least 1, or none")
        check(self, "checkpoint_dtype", self.checkpoint_dtype in ("float32", "float16"), "float32 or float16")


BETA_SCHEDULES = ("truncated_linear", "linear")

PRESETS = {
    "default": {},
    "literal": {
        "batch_size": 1280,
        "denoiser": "add",
        "unit_variance": False,
        "lambda_gate": 0.0,
        "code_decay": 0.0,
        "lambda_match": 0.0,
        "code_lifetime": 0,
        "detach_target": False,
        "own_noise": 0.0,
        "feature_weight": 1.0,
        "repeat_bias": False,
        "dropout": 0.1,
    },
}
"""Named settings: fields of either config that differ from their defaults.

``literal`` is the paper to the letter, but for two things: Eq. 14 is the mean over D, not the sum, and an epoch draws
up to ten prefixes of each user (``max_prefixes_per_user``). How weights begin, the paper leaves open: here as in the
default, the experts' biases far apart and the gates flat. Begun as ``torch.nn.Linear`` does, it is much the same (seed
0): text and image codes collapse (perplexity 1.0 and 1.0), overlap 0.995, N@10 0.219 for 0.216 after ten epochs; on the
test items 0.230 for 0.221, and to the end 0.229 for 0.231.
"""


def check(config: object, name: str, holds: bool, accepted: str) -> None:
    """Raise ``InputError`` naming the field, its value and what is accepted, unless ``holds``."""
    if not holds:
        raise InputError(f"{name} is {getattr(config, name)!r}; it must be {accepted}.")


def check_types(config: object) -> None:
    """Raise ``InputError`` when a field's value is not of its declared type (an int passes for a float)."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, accepted = getattr(config, field.name), field_types(hints[field.name])
        passes = type(value) in accepted or (float in accepted and type(value) is int)
        names = " or ".join("none" if kind is type(None) else kind.__name__ for kind in accepted)
        check(config, field.name, passes, f"of type {names}")
        check(config, field.name, type(value) is not float or abs(value) < float("inf"), "a finite number")
        check(config, field.name, type(value) is not int or abs(value) < 2**31, "below 2147483648")


def field_types(hint: object) -> tuple[type, ...]:
    """``int | None`` -> ``(int, NoneType)``; ``int`` -> ``(int,)``."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def from_dict(kind: type, values: dict, source: str) -> object:
    """Build the config dataclass ``kind`` from ``values``, refusing unknown names; ``source`` is named in errors."""
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{source} has an unknown setting {unknown[0]!r}; the settings are {', '.join(known)}.")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
