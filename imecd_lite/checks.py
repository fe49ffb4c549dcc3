"""Checks of the notebooks' exercises: what is right, what is still to do, and which mistake was made.

A check returns a ``Verdict`` and raises nothing of its own; what a learner's function raises stays hers to see.
"""

# B batch, T tokens, L sequence, D hidden, I items, K neighbours, N experts, Z codes

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from imecd_lite.config import IMECDConfig
from imecd_lite.encoders import mean_pool
from imecd_lite.model import IMECD

TO_DO, WRONG, RIGHT = "… Still to do:", "✗ Not quite:", "✓ Right:"
TRUTH_AUC, GOOD_AUC, CHANCE_AUC = 0.99, 0.8, 0.6


@dataclass(frozen=True)
class Verdict:
    """What a check found; a notebook shows it as one line."""

    state: str  # TO_DO, WRONG or RIGHT
    message: str

    @property
    def passed(self) -> bool:
        """Is the exercise solved?"""
        return self.state == RIGHT

    def __repr__(self) -> str:
        return f"{self.state} {self.message}"


def read_answer(answer: object, shape: tuple[int, ...], meaning: str, stub: str) -> torch.Tensor | Verdict:
    """A learner's answer as a tensor of that shape, or what to say of it.

    Args:
        answer: None is the stub.
        shape: what it should have.
        meaning: of the shape, such as "one score a toy".
        stub: what to say to the stub.
    """
    if answer is None:
        return Verdict(TO_DO, stub)
    tensor = as_tensor(answer)
    if tensor is None:
        return Verdict(WRONG, f"a tensor or an array is wanted, this is a {type(answer).__name__}.")
    if tuple(tensor.shape) != shape:
        return Verdict(WRONG, f"the shape is {tuple(tensor.shape)}; it should be {shape}, {meaning}.")
    return tensor


def as_tensor(answer: object) -> torch.Tensor | None:
    """A tensor, an array, a series, a number or a list of them as one tensor; None where it can't be."""
    try:
        if isinstance(answer, (tuple, list)):
            return torch.stack([as_tensor(part) for part in answer])
        if isinstance(answer, torch.Tensor):
            return answer.detach()
        return torch.as_tensor(np.array(answer, order="C"))  # a copy: torch takes no reversed view
    except (TypeError, ValueError, RuntimeError):
        return None


def call_each(function: Callable, cases: Sequence[tuple], stub: str, said: Callable[..., str]) -> list | Verdict:
    """What a learner's function returns for each of ``cases``, its arguments, or what to say where it returns nothing.

    Args:
        stub: what to say where it never returns anything.
        said: a case in words, such as "rank 3 and K = 5".
    """
    answers = [function(*(a.clone() if isinstance(a, torch.Tensor) else a for a in case)) for case in cases]
    missing = [case for case, answer in zip(cases, answers, strict=True) if answer is None]
    if len(missing) == len(cases):
        return Verdict(TO_DO, stub)
    if missing:
        return Verdict(
            WRONG, f"for {said(*missing[0])} you return nothing; does every way through it end in a `return`?"
        )
    return answers


def has_shape(answer: object, shape: tuple[int, ...]) -> bool:
    """Is ``answer`` something of this shape that ``read_answer`` can read?"""
    tensor = as_tensor(answer)
    return tensor is not None and tuple(tensor.shape) == shape


def check_pooling(pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Verdict:
    """Does ``pool`` turn the states (B, T, D) of each text's tokens, with their mask (B, T), into its mean (B, D)?"""
    hidden = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)) + 2  # (B, T, D)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])  # (B, T)
    answer = pool(hidden.clone(), mask.clone())
    read = read_answer(
        answer, (3, 4), "one vector a text", "make one vector of each text: return the mean of its tokens."
    )
    if isinstance(read, Verdict):
        return read
    summed = (hidden * mask[..., None]).sum(dim=1)  # (B, D)
    mistakes = {
        "you averaged the padding too; multiply by the mask before you add up.": hidden.mean(dim=1),
        "you divided by the length of the batch; divide by each text's own number of tokens.": summed / 5,
        "that is the sum of the tokens; divide it by their number.": summed,
        "you divided by the tokens of the whole batch; divide by each text's own, `mask.sum(dim=1, keepdim=True)`.": (
            summed / mask.sum()
        ),
        "you took the first token; that is how the picture is read, the text is the mean of all its tokens.": hidden[
            :, 0
        ],
    }
    for message, wrong in mistakes.items():
        if close(read, wrong):
            return Verdict(WRONG, message)
    if close(read, mean_pool(hidden, mask)):
        return Verdict(RIGHT, "padding has no say, however long the longest text of the batch is.")
    return Verdict(WRONG, "the shape is right, the numbers are not; take one text and work it out by hand.")


def judge(
    is_with: Callable[[tuple[str, ...]], bool], mistakes: dict[str, str], praise: str, most: int = 2
) -> Verdict | None:
    """Right, with ``praise``, or which of ``mistakes``, at most ``most``, explain an answer; None where they don't.

    Args:
        is_with: whether the answer is the one that these mistakes lead to; right is the one of none.
        mistakes: by key, what to say of each.
    """
    for count in range(most + 1):
        for made in combinations(mistakes, count):
            if is_with(made):
                return Verdict(WRONG, " And ".join(mistakes[key] for key in made)) if made else Verdict(RIGHT, praise)
    return None


def close(answer: torch.Tensor, other: torch.Tensor) -> bool:
    """Are two tensors of one shape the same but for rounding?"""
    return torch.allclose(answer.double(), other.double(), atol=1e-5)


def tell(numbers: torch.Tensor) -> str:
    """Numbers to three places."""
    return ", ".join(f"{value:.3f}" for value in numbers.tolist())


NEAREST_MISTAKES = {
    "dot": "you compared dot products, not cosines: long vectors win.",
    "distance": "you compared distances, not cosines: the length of a vector should not count.",
    "itself": "an item is its own nearest neighbour; leave it out.",
    "farthest": "these are the farthest; the greatest cosine is the nearest.",
    "query": "you started from row `item`; item i is in row i - 1.",
    "rows": "you returned rows; item i is in row i - 1, so add 1.",
}


def check_nearest(nearest: Callable[[torch.Tensor, int, int], torch.Tensor]) -> Verdict:
    """Does ``nearest(vectors, item, k)`` find, in vectors (I, D), the ``k`` items (K,) of greatest cosine to ``item``?

    Items are 1 ... I, item i in row i - 1; the nearest first, the item itself left out.
    """
    vectors, item, k = made_vectors(), 7, 5
    read = read_answer(nearest(vectors.clone(), item, k), (k,), "one item a neighbour", "return the k nearest items.")
    if isinstance(read, Verdict):
        return read
    if verdict := judge(
        lambda made: read.tolist() == nearest_with(vectors, item, k, made),
        NEAREST_MISTAKES,
        "cosines, nearest first, without the item itself.",
        most=4,
    ):
        return verdict
    if (read != read.round()).any():
        return Verdict(WRONG, "those are cosines; return the items that have them: `topk` has `indices`, too.")
    if sorted(read.tolist()) == sorted(nearest_with(vectors, item, k)):
        return Verdict(WRONG, "the right items in another order; put the nearest first.")
    return Verdict(WRONG, f"of {k} items, {len(set(read.tolist()) & set(nearest_with(vectors, item, k)))} are right.")


def made_vectors() -> torch.Tensor:
    """Vectors (30, 4) of very different lengths, on which every mistake of ``check_nearest`` shows."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 4, generator=generator) * (0.5 + 4 * torch.rand(30, 1, generator=generator))


def nearest_with(vectors: torch.Tensor, item: int, k: int, mistakes: tuple[str, ...] = ()) -> list[int]:
    """The ``k`` nearest items in vectors (I, D), with ``mistakes`` made on purpose."""
    row = item if "query" in mistakes else item - 1
    unit = F.normalize(vectors, dim=-1)
    scores = unit @ unit[row]  # (I,)
    if "dot" in mistakes:
        scores = vectors @ vectors[row]
    elif "distance" in mistakes:
        scores = -(vectors - vectors[row]).norm(dim=-1)
    if "farthest" in mistakes:
        scores = -scores
    if "itself" not in mistakes:
        scores[row] = -torch.inf
    return (scores.topk(k).indices + ("rows" not in mistakes)).tolist()


def check_suspicion(scores: torch.Tensor | None, misleading: np.ndarray) -> Verdict:
    """Are the ``scores`` (I,) high where ``misleading`` (I,) is True? Judged by the AUC.

    The AUC is how often a misleading item scores above an honest one: 0.5 is guessing, 1 never wrong.
    """
    stub = "give each toy a score, high where its text is likely to mislead."
    read = read_answer(scores, misleading.shape, "one score a toy", stub)
    if isinstance(read, Verdict):
        return read
    if not read.double().isfinite().all():
        return Verdict(WRONG, "some scores are not finite numbers; a division by zero?")
    if np.array_equal(read.numpy(), misleading):
        return Verdict(WRONG, "that is the planted truth itself; a real shop has none. Use vectors alone.")
    auc = roc_auc_score(misleading, read.double().numpy())
    if auc > TRUTH_AUC:
        return Verdict(WRONG, f"AUC {auc:.3f}: so much only the planted truth knows; a real shop has none.")
    if auc < 1 - CHANCE_AUC:
        return Verdict(WRONG, "the wrong way round: the honest score higher than the misleading. Turn the sign.")
    if auc < CHANCE_AUC:
        return Verdict(WRONG, f"AUC {auc:.2f}, and 0.5 is guessing; compare texts with those of the neighbours by ID.")
    if auc < GOOD_AUC:
        return Verdict(
            WRONG, f"AUC {auc:.2f}, on the way to {GOOD_AUC}; cosines tell more than whether a list shares an item."
        )
    return Verdict(RIGHT, f"AUC {auc:.2f}: so often does a misleading text score above an honest one.")


GATE_MISTAKES = {
    "items": "your gates sum to 1 over items, not over experts.",
    "logits": "these are the router's logits; Eq. 3 ends with a softmax over the experts.",
    "bias": "you forgot the bias.",
    "raw": "you used the raw ID embedding: the library normalises it first, `model.normalise(...)`.",
    "padding": "you normalised with the padding still among the items; drop row 0 first, then normalise.",
    "columns": "you gave each column a scale of its own; `model.normalise(...)` takes each column's mean off and then "
    "divides all by one number.",
    "length": "you scaled each row to length 1; `model.normalise(...)` scales all rows alike, to unit variance.",
    "other": "that is the gate of the other modality.",
}


def check_gates(gates: object, model: IMECD, modality: str = "text") -> Verdict:
    """Are ``gates`` those of Eq. 3 (Eq. 4 for "image"), (I, N), row i - 1 for item i?"""
    experts = model.config.num_experts
    shape = (model.num_items, experts)
    if has_shape(gates, (model.num_items + 1, experts)):
        return Verdict(WRONG, "one row too many: row 0 of the ID embeddings is the padding, items start at row 1.")
    read = read_answer(gates, shape, "one gate an item, one weight an expert", "make a gate for every item by Eq. 3.")
    if isinstance(read, Verdict):
        return read
    if verdict := judge(
        lambda made: close(read, gates_with(model, modality, made)),
        GATE_MISTAKES,
        f"{shape[0]:,} gates, and each shares out 1 among {experts} experts.",
    ):
        return verdict
    sums = read.double().sum(dim=1)  # (I,)
    if not close(sums, torch.ones_like(sums)):
        return Verdict(WRONG, f"a gate shares out 1 among the experts; your first item's sums to {sums[0]:.3f}.")
    return Verdict(
        WRONG,
        "each gate sums to 1, but the weights are not the library's; is it `W e + b`, and e from "
        "`model.normalise(...)`?",
    )


@torch.no_grad()
def gates_with(model: IMECD, modality: str, mistakes: tuple[str, ...] = ()) -> torch.Tensor:
    """Eq. 3 or 4, (I, N), with ``mistakes`` of ``GATE_MISTAKES`` made on purpose."""
    ids = model.item_embedding.weight[1:]  # (I, D)
    if "length" in mistakes:
        ids = F.normalize(ids, dim=1)
    elif "columns" in mistakes:
        ids = (ids - ids.mean(dim=0)) / ids.std(dim=0, correction=0)
    elif "padding" in mistakes:
        ids = model.normalise(model.item_embedding.weight)[1:]
    elif "raw" not in mistakes:
        ids = model.normalise(ids)
    if "other" in mistakes:
        modality = next((name for name in model.experts if name != modality), modality)
    gate = model.experts[modality].gate
    logits = F.linear(ids, gate.weight, None if "bias" in mistakes else gate.bias)  # (I, N)
    return logits if "logits" in mistakes else logits.softmax(dim=0 if "items" in mistakes else 1)


def check_effective(answer: object, gates: np.ndarray) -> Verdict:
    """Is ``answer`` (I,) the effective number of experts, exp of the entropy, of each gate (I, N)?"""
    gates = torch.as_tensor(gates).double()  # (I, N)
    items, experts = gates.shape
    if has_shape(answer, ()):
        return Verdict(WRONG, "that is one number for the whole shop; give one for each item.")
    if has_shape(answer, (experts,)) and experts != items:
        return Verdict(WRONG, "you went over the items; sum over the experts, the last dimension.")
    read = read_answer(answer, (items,), "one number an item", "how many experts does each item listen to?")
    if isinstance(read, Verdict):
        return read
    nats = -(gates * gates.clamp(min=1e-300).log()).sum(dim=1)  # (I,)
    if close(read, nats.exp()):
        return Verdict(RIGHT, f"on average an item listens to {nats.exp().mean():.1f} of {experts} experts.")
    if not read.double().isfinite().all():
        return Verdict(WRONG, "some are not finite numbers: the logarithm of 0? An expert with weight 0 adds 0.")
    bits = nats / np.log(2)
    mistakes = {
        "that is the entropy; the effective number is exp of it.": nats,
        "that is the entropy in bits; take the natural logarithm, and then exp.": bits,
        "you took the logarithm to base 2, but exp to base e: use one base for both.": bits.exp(),
        "that is the entropy to base 10; take the natural logarithm, and then exp.": nats / np.log(10),
        "you took the logarithm to base 10, but exp to base e: use one base for both.": (nats / np.log(10)).exp(),
        "you took the mean over the experts; an entropy is a sum.": (nats / experts).exp(),
        "mind the sign: the entropy is *minus* the sum, so an open mind counts for more than 1.": (-nats).exp(),
        "that is minus the entropy; turn the sign, then take exp.": -nats,
        "that is the entropy as a share of its greatest value; take exp of the entropy itself.": nats / np.log(experts),
        "1 / sum g² is another good measure of the same thing; here, take exp of the entropy.": 1 / (gates**2).sum(1),
    }
    for message, wrong in mistakes.items():
        if close(read, wrong):
            return Verdict(WRONG, message)
    return Verdict(WRONG, f"the shape is right, the numbers are not; all lie between 1 and {experts}. Try a flat gate.")


GUMBEL_MISTAKES = {
    "batch": "your choices sum to 1 over the batch, not over the codes: a softmax over the last dimension is wanted.",
    "times": "you multiplied by the temperature; divide by it.",
    "cold": "you forgot the temperature: Eq. 8 divides by tau.",
    "once": "one logarithm is missing: Gumbel noise is -log(-log(u)).",
    "late": "you added the noise after the softmax; Eq. 8 adds it to the logits.",
    "uniform": "you used the uniform numbers as noise; Gumbel noise is -log(-log(u)).",
    "sign": "the noise has the wrong sign: -log(-log(u)), with a minus before both logarithms.",
    "loud": "you divided the logits alone; Eq. 8 divides logits and noise, (o + n) / tau.",
    "silent": "there is no noise in it; add -log(-log(u)) to the logits.",
}


def check_gumbel_softmax(choose: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]) -> Verdict:
    """Is ``choose(logits, uniform, temperature)`` Eq. 8? All (B, Z); the noise is made of ``uniform`` numbers."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4, 6, generator=generator)  # (B, Z)
    uniform, temperature = torch.rand(4, 6, generator=generator), 0.5
    answer = choose(logits.clone(), uniform.clone(), temperature)
    read = read_answer(answer, (4, 6), "a choice a history, a share a code", "return the soft choice of Eq. 8.")
    if isinstance(read, Verdict):
        return read
    if verdict := judge(
        lambda made: close(read, gumbel_softmax_with(logits, uniform, temperature, made)),
        GUMBEL_MISTAKES,
        "each history shares out 1 among the codes, and chance has a say in it.",
    ):
        return verdict
    if close(read, F.one_hot(gumbel_softmax_with(logits, uniform, temperature).argmax(dim=1), 6)):
        return Verdict(WRONG, "that is the hard choice already; Eq. 8 ends with the soft one, a softmax.")
    if not read.double().isfinite().all():
        return Verdict(WRONG, "some are not finite numbers: log(u) is negative, so it is -log(-log(u)), minus in both.")
    sums = read.double().sum(dim=1)  # (B,)
    if not close(sums, torch.ones_like(sums)):
        return Verdict(WRONG, f"a choice shares out 1 among the codes; your first history's sums to {sums[0]:.3f}.")
    return Verdict(WRONG, "each choice sums to 1, but the shares are not those of Eq. 8; take one history by hand.")


def gumbel_softmax_with(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: float, mistakes: tuple[str, ...] = ()
) -> torch.Tensor:
    """Eq. 8 of logits and uniform numbers, (B, Z), with ``mistakes`` of ``GUMBEL_MISTAKES`` made on purpose."""
    noise = -(-uniform.log()).log()
    if "uniform" in mistakes:
        noise = uniform
    if "sign" in mistakes:
        noise = -noise
    if "silent" in mistakes:
        noise = torch.zeros_like(noise)
    if "once" in mistakes:
        noise = -uniform.log()
    scale = 1.0 if "cold" in mistakes else 1 / temperature if "times" in mistakes else temperature
    dim = 0 if "batch" in mistakes else 1
    if "late" in mistakes:
        return (logits / scale).softmax(dim) + noise
    if "loud" in mistakes:
        return (logits / scale + noise).softmax(dim)
    return ((logits + noise) / scale).softmax(dim)


def check_em(update: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Verdict:
    """Is ``update(codes, sequences, indices)`` Eq. 10? Codes (Z, L, D), sequences (B, L, D), zero at the padding.

    ``indices`` (B,) say which code each sequence chose; a code that nobody chose keeps its value.
    """
    generator = torch.Generator().manual_seed(0)
    codes, sequences = torch.randn(4, 3, 2, generator=generator), torch.randn(6, 3, 2, generator=generator)
    sequences[[1, 4], :1] = 0  # the padding of shorter histories
    indices = torch.tensor([0, 0, 3, 0, 3, 1])
    answer = update(codes.clone(), sequences.clone(), indices.clone())
    if has_shape(answer, (4, 2)):
        return Verdict(WRONG, "you averaged over the positions too; a code keeps them all, it is as long as a history.")
    read = read_answer(answer, (4, 3, 2), "as the codes", "move each chosen code to the mean of its members.")
    if isinstance(read, Verdict):
        return read
    chosen = torch.tensor([True, True, False, True])
    sums = torch.stack([sequences[indices == z].sum(dim=0) for z in range(4)])  # (Z, L, D)
    counts = torch.bincount(indices, minlength=4)[:, None, None]  # (Z, 1, 1)
    means = sums / counts.clamp(min=1)
    right = torch.where(chosen[:, None, None], means, codes)
    if close(read, right):
        return Verdict(RIGHT, "each chosen code is the mean of its members; the one that nobody chose has stayed.")
    unused = {
        "the code that nobody chose has become NaN, 0 / 0: leave such a code as it is.": read[2].isnan().all(),
        "the code that nobody chose has become zero: leave such a code as it is.": (read[2] == 0).all(),
    }
    own_items = torch.stack([(sequences[indices == z] != 0).any(dim=2).sum(dim=0) for z in range(4)])[..., None]
    mistakes = {
        "you divided by the size of the batch; divide by the number of the code's own members.": sums / len(indices),
        "that is the sum of the members; divide it by their number.": sums,
        "you averaged over the positions too; each position has a mean of its own.": means.mean(1, True).expand(
            4, 3, 2
        ),
        "you left the padding out of the mean; in Eq. 10 its zeros count.": sums / own_items.clamp(min=1),
        "you met the old code half-way; Eq. 10 forgets it.": (means + codes) / 2,
    }
    found = [message for message, wrong in mistakes.items() if close(read[chosen], wrong[chosen])]
    found += [message for message, holds in unused.items() if holds]
    if not found and close(read[chosen], means[chosen]):
        found = ["a code that nobody chose keeps its value; yours has moved."]
    if not found and close(read, codes):
        found = ["no code has moved."]
    return Verdict(WRONG, " And ".join(found) or "the shape is right, the numbers are not; take one code by hand.")


def check_perplexity(measure: Callable[[np.ndarray, int], float]) -> Verdict:
    """Is ``measure(indices, codebook_size)`` exp of the entropy of how often each of Z codes is chosen?

    ``indices`` (B,) are chosen codes, 0 ... Z - 1. Some of the codes are chosen by nobody.
    """
    indices, size = np.array([5, 1, 1, 5, 5, 0, 5, 1, 5, 5]), 8
    answer = measure(indices.copy(), size)
    read = read_answer(answer, (), "one number", "return one number, how many codes are in use.")
    if isinstance(read, Verdict):
        return read
    shares = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    nats = -(shares * shares.log()).sum()
    if close(read, nats.exp()):
        return Verdict(RIGHT, f"{nats.exp():.2f}: three codes are in use, but not alike. All alike would make 3.")
    if not read.double().isfinite():
        return Verdict(WRONG, "that is not a finite number: the logarithm of 0? A code that nobody chose adds 0.")
    bits, of_codes = nats / np.log(2), shares * len(indices) / size
    mistakes = {
        "that is the entropy; the perplexity is exp of it.": nats,
        "that is the entropy in bits; take the natural logarithm, and then exp.": bits,
        "you took the logarithm to base 2, but exp to base e: use one base for both.": bits.exp(),
        "that is the entropy to base 10; take the natural logarithm, and then exp.": nats / np.log(10),
        "you took the logarithm to base 10, but exp to base e: use one base for both.": (nats / np.log(10)).exp(),
        "you took the mean over the codes; an entropy is a sum.": (nats / size).exp(),
        "you took the mean over the codes in use; an entropy is a sum.": (nats / len(shares)).exp(),
        "you counted the codes in use; one that is hardly ever chosen should hardly count.": shares.new_tensor(3.0),
        "that is the size of the codebook, whatever was chosen.": shares.new_tensor(float(size)),
        "mind the sign: the entropy is *minus* the sum.": (-nats).exp(),
        "that is minus the entropy; turn the sign, then take exp.": -nats,
        "that is a share of the codebook; leave out the division by its size.": nats.exp() / size,
        "your shares don't add up to 1: divide by the number of choices, not of codes.": (
            -(of_codes * of_codes.log()).sum()
        ).exp(),
        "1 / sum p² is another good measure of the same thing; here, take exp of the entropy.": 1 / (shares**2).sum(),
    }
    for message, wrong in mistakes.items():
        if close(read, wrong):
            return Verdict(WRONG, message)
    if not 1 <= float(read) <= size:
        return Verdict(WRONG, f"that is {float(read):.2f}; a perplexity lies between 1 and {size}.")
    return Verdict(WRONG, f"that is {float(read):.2f}, not it. Are your shares of all choices, and do they sum to 1?")


NOISE_MISTAKES = {
    "alpha": "you used the alpha of step t alone: that is Eq. 11, one step. Alpha-bar is the product of all up to t.",
    "beta": "you used beta where alpha-bar belongs; alpha is 1 - beta, alpha-bar the product of the alphas.",
    "root": "the square roots are missing: Eq. 12 mixes with sqrt(abar) and sqrt(1 - abar).",
    "signal": "the square root over abar is missing; there is one on both sides, sqrt(abar) and sqrt(1 - abar).",
    "rest": "the square root over 1 - abar is missing; there is one on both sides, sqrt(abar) and sqrt(1 - abar).",
    "inside": "the noise gets sqrt(1 - abar), the root of the difference; 1 - sqrt(abar) is another number.",
    "columns": "your t go to the columns, not to the rows: add a dimension, `[:, None]`, to multiply whole rows.",
    "swap": "signal and noise are swapped: sqrt(abar) goes with x_0, sqrt(1 - abar) with the noise.",
    "minus": "Eq. 12 adds the noise; you take it away.",
    "step": "the noise gets sqrt(beta_t) at one step, Eq. 11; after t steps it is sqrt(1 - abar).",
    "betas": "alpha-bar is the product of the alphas, 1 - beta; you multiplied the betas.",
    "off": "you are off by one: t counts from 1, so beta_t is `betas[t - 1]`.",
}


def check_add_noise(
    add_noise: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> Verdict:
    """Does ``add_noise(x_0, noise, t, betas)`` make x_t by Eq. 12? x_0 and noise (B, D), t (B,) from 1, betas (T,)."""
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 6, 6, generator=generator)  # (B, D) each; square, so that a forgotten [:, None] is told
    t, betas = torch.tensor([1, 2, 3, 5, 7, 9]), torch.linspace(0.05, 0.4, 10)
    reads = []
    for given in (noise, noise, -noise):
        answer = add_noise(x_0.clone(), given.clone(), t.clone(), betas.clone())
        read = read_answer(answer, (6, 6), "one noised vector for each", "return x_t by Eq. 12.")
        if isinstance(read, Verdict):
            return read
        reads.append(read)
    read, again, other = reads
    if not close(read, again):
        return Verdict(
            WRONG, "called twice with the same noise, it gives two answers: use `noise`, draw none of your own."
        )
    if close(read, other):
        return Verdict(WRONG, "the noise has no say in your x_t: use `noise`, the one that is given.")
    if verdict := judge(
        lambda made: close(read, noised_with(x_0, noise, t, betas, made)),
        NOISE_MISTAKES,
        "and no loop over the steps: Eq. 12 jumps to any t at once.",
    ):
        return verdict
    for one in range(1, len(betas) + 1):
        if close(read, noised_with(x_0, noise, torch.full_like(t, one), betas)):
            return Verdict(WRONG, f"you took t = {one} for the whole batch; every row has a t of its own.")
    return Verdict(WRONG, "the shape is right, the numbers are not; work out t = 1 by hand, where abar is 1 - beta_1.")


def noised_with(
    x_0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, betas: torch.Tensor, mistakes: tuple[str, ...] = ()
) -> torch.Tensor:
    """Eq. 12, (B, D), with ``mistakes`` of ``NOISE_MISTAKES`` made on purpose."""
    kept = betas if "beta" in mistakes else 1 - betas if "alpha" in mistakes else (1 - betas).cumprod(dim=0)  # (T,)
    kept = betas.cumprod(dim=0) if "betas" in mistakes else kept
    place = t if "off" in mistakes else t - 1  # (B,)
    abar, beta = kept[place], betas[place]  # (B,) each
    abar, beta = (abar, beta) if "columns" in mistakes else (abar[:, None], beta[:, None])
    signal = abar if {"root", "signal"} & set(mistakes) else abar.sqrt()
    rest = 1 - abar if {"root", "rest"} & set(mistakes) else (1 - abar).sqrt()
    rest = 1 - abar.sqrt() if "inside" in mistakes else rest
    rest = beta.sqrt() if "step" in mistakes else rest
    noise = -noise if "minus" in mistakes else noise
    return rest * x_0 + signal * noise if "swap" in mistakes else signal * x_0 + rest * noise


def check_snr(answer: object, alphas_cumprod: torch.Tensor, variance: float) -> Verdict:
    """Is ``answer`` (T,) the signal-to-noise ratio of x_t at t = 1 ... T?

    Args:
        alphas_cumprod: (T + 1,), abar_0 = 1 first.
        variance: of x_0; the noise's is 1.
    """
    abar = torch.as_tensor(alphas_cumprod).double()[1:]  # (T,)
    if has_shape(answer, (len(abar) + 1,)):
        return Verdict(WRONG, "one too many: at t = 0 there is no noise to divide by; begin with t = 1.")
    read = read_answer(
        answer, (len(abar),), "one ratio a step", "how strong is the signal at each t, the noise being 1?"
    )
    if isinstance(read, Verdict):
        return read
    ratio = variance * abar / (1 - abar)
    mistakes = {
        "you forgot the variance of x_0: the schedule alone does not know how loud the signal is.": abar / (1 - abar),
        "the wrong way up: that is noise over signal.": 1 / ratio,
        "that is the ratio of the amplitudes; variances are wanted, so don't take the square root.": ratio.sqrt(),
        "that is the signal alone; divide it by the variance of the noise, 1 - abar.": variance * abar,
        "you multiplied by x_0's deviation; variances are wanted.": variance**0.5 * abar / (1 - abar),
        "those are decibels or logarithms; give the plain ratio.": 10 * ratio.log10(),
        "off by one: abar_0 stands first; leave out that one, not the last.": ratio.roll(1).index_fill(
            0, torch.tensor([0]), torch.inf
        ),
    }
    if torch.allclose(read.double(), ratio, rtol=1e-3):
        first = int((ratio < 1).nonzero()[0]) + 1 if (ratio < 1).any() else None
        return Verdict(
            RIGHT, f"from t = {first} on there is more noise than signal." if first else "signal to the end."
        )
    for message, wrong in mistakes.items():
        if torch.allclose(read.double(), wrong, rtol=1e-3):
            return Verdict(WRONG, message)
    return Verdict(WRONG, f"the shape is right, the numbers are not; at t = 1 the ratio is {ratio[0]:.4g}.")


STEP_MISTAKES = {
    "swap": "the two weights of Eq. 17 are swapped: sqrt(abar_{t-1}) beta_t belongs to the prediction.",
    "previous": "you used abar_t where abar_{t-1} belongs.",
    "sigma": "your sigma² is beta_t, and so the last step, t = 1, adds noise; the paper's is zero there.",
    "variance": "the noise is multiplied by sigma, not by sigma²: take the square root.",
    "mean": "that is the mean of Eq. 17; Eq. 18 adds sigma times the noise.",
    "roots": "the weights of Eq. 17 have square roots: of abar_{t-1} in one, of alpha_t in the other.",
    "minus": "Eq. 18 adds the noise; you take it away.",
    "plain": "you add the noise as it is; Eq. 18 multiplies it by sigma.",
}


STEP_ORDER = (
    "Check in this order: alpha_t is abar_t / abar_{t-1} and beta_t is 1 - alpha_t; both weights are divided by "
    "1 - abar_t; the square roots are of abar_{t-1} and of alpha_t; sigma times the noise is added."
)


def check_step(step: Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor, torch.Tensor], torch.Tensor]) -> Verdict:
    """Does ``step(prediction, x_t, t, noise, abar)`` make x_{t-1} by Eq. 17, 18?

    Prediction, x_t and noise are (B, D), t is an int from 1, abar (T + 1,) begins with abar_0 = 1.
    """
    generator = torch.Generator().manual_seed(0)
    prediction, x_t, noise = torch.randn(3, 5, 4, generator=generator)  # (B, D) each
    abar = torch.cat([torch.ones(1), (1 - torch.linspace(0.05, 0.5, 8)).cumprod(dim=0)])  # (T + 1,)
    times, reads, stub = (1, 4, 8), [], "return x_{t-1} by Eq. 18."
    answers = call_each(step, [(prediction, x_t, t, noise, abar) for t in times], stub, lambda *case: f"t = {case[2]}")
    if isinstance(answers, Verdict):
        return answers
    for answer in answers:
        read = read_answer(answer, (5, 4), "as x_t", stub)
        if isinstance(read, Verdict):
            return read
        reads.append(read)
    if not all(read.double().isfinite().all() for read in reads):
        return Verdict(
            WRONG,
            "some are not finite numbers; is there a 1 - abar_0, zero, below a fraction, or a root of what is "
            "negative? alpha_t is abar_t / abar_{t-1}, below 1.",
        )
    if verdict := judge(
        lambda made: all(
            close(r, stepped_with(prediction, x_t, t, noise, abar, made)) for t, r in zip(times, reads, strict=True)
        ),
        STEP_MISTAKES,
        "and at t = 1 it returns the prediction itself.",
    ):
        return verdict
    right = [
        t for t, read in zip(times, reads, strict=True) if close(read, stepped_with(prediction, x_t, t, noise, abar))
    ]
    hint = f"right at t = {', '.join(map(str, right))} alone" if right else "wrong at every t"
    return Verdict(WRONG, f"the shape is right, the numbers are {hint}. {STEP_ORDER}")


def stepped_with(
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    t: int,
    noise: torch.Tensor,
    abar: torch.Tensor,
    mistakes: tuple[str, ...] = (),
) -> torch.Tensor:
    """Eq. 17, 18, (B, D), with ``mistakes`` of ``STEP_MISTAKES`` made on purpose."""
    alpha = abar[t] / abar[t - 1]
    before = abar[t] if "previous" in mistakes else abar[t - 1]
    power = 1.0 if "roots" in mistakes else 0.5
    weights = [before**power * (1 - alpha) / (1 - abar[t]), alpha**power * (1 - before) / (1 - abar[t])]
    first, second = reversed(weights) if "swap" in mistakes else weights
    variance = 1 - alpha if "sigma" in mistakes else (1 - before) / (1 - abar[t]) * (1 - alpha)
    sigma = variance if "variance" in mistakes else variance.sqrt()
    sigma = 0.0 if "mean" in mistakes else 1.0 if "plain" in mistakes else sigma
    return first * prediction + second * x_t + (-sigma if "minus" in mistakes else sigma) * noise


SCORE_MISTAKES = {
    "id": "you used the ID alone; Eq. 19 adds up all modalities.",
    "padding": "the padding is among your candidates: row 0 of a table is no item.",
    "items": "you summed over the items; an inner product sums over the dimensions, one score an item.",
    "cosine": "these are cosines; Eq. 19 takes plain inner products, long vectors count for more.",
    "mean": "that is the mean over the modalities; Eq. 19 takes the sum.",
}


def check_scores(
    score: Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], torch.Tensor],
) -> Verdict:
    """Does ``score(generated, tables)`` give Eq. 19, (I,), item i at place i - 1?

    ``generated`` holds p_u (D,) of each modality, ``tables`` e_i as (I + 1, D) with the padding in row 0.
    """
    generated, tables = made_scores()
    items = len(tables["id"]) - 1
    answer = score(dict(generated), dict(tables))
    for mistakes in (("padding",), ("items",), ("id", "padding"), ("cosine", "padding"), ("mean", "padding")):
        wrong = scores_with(generated, tables, mistakes)
        if has_shape(answer, tuple(wrong.shape)) and close(as_tensor(answer), wrong):
            return Verdict(WRONG, " And ".join(SCORE_MISTAKES[mistake] for mistake in mistakes))
    read = read_answer(answer, (items,), "one score an item", "return the score of every item.")
    if isinstance(read, Verdict):
        return read
    for mistakes in ((), ("id",), ("cosine",), ("mean",)):
        if close(read, scores_with(generated, tables, mistakes)):
            if not mistakes:
                return Verdict(RIGHT, f"{items} items, {len(tables)} inner products each, added up.")
            return Verdict(WRONG, SCORE_MISTAKES[mistakes[0]])
    shifted = scores_with(generated, tables, ("padding",))[:-1]
    if close(read, shifted):
        return Verdict(WRONG, "off by one: you left out the last item, not the padding, which is row 0.")
    return Verdict(WRONG, "the shape is right, the numbers are not; work out one item by hand.")


def made_scores() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """p_u (D,) and tables (I + 1, D) of three modalities, for 9 items of 9 dimensions: sums over either have one shape.

    The padding's row is not zero here, so that whoever scores it can be told.
    """
    generator = torch.Generator().manual_seed(0)
    tables = {name: torch.randn(10, 9, generator=generator) for name in ("id", "text", "image")}
    return {name: torch.randn(9, generator=generator) for name in tables}, tables


def scores_with(
    generated: dict[str, torch.Tensor], tables: dict[str, torch.Tensor], mistakes: tuple[str, ...] = ()
) -> torch.Tensor:
    """Eq. 19 with ``mistakes`` of ``SCORE_MISTAKES`` made on purpose."""
    names = ["id"] if "id" in mistakes else list(tables)
    start = 0 if "padding" in mistakes else 1
    total = torch.zeros(())
    for name in names:
        table, p_u = tables[name][start:], generated[name]
        if "cosine" in mistakes:
            table, p_u = F.normalize(table, dim=-1), F.normalize(p_u, dim=-1)
        total = total + (p_u * table).sum(dim=0 if "items" in mistakes else 1)
    return total / len(names) if "mean" in mistakes else total


CROSS_ENTROPY_MISTAKES = {
    "batch": "your softmax runs over the batch; Eq. 20 sums over the items, the last dimension.",
    "log": "you forgot the logarithm of Eq. 21.",
    "sign": "mind the sign of Eq. 21: a loss goes down as the model learns, so it is *minus* the logarithm.",
    "column": "off by one: item i is in column i - 1.",
    "sum": "that is the sum over the batch; take the mean.",
}


def check_cross_entropy(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Verdict:
    """Does ``loss(logits, pos_items)`` give Eq. 20, 21, the mean over a batch?

    ``logits`` are (B, I), item i in column i - 1; ``pos_items`` (B,) are 1 ... I.
    """
    logits = 2 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))  # (B, I)
    pos_items = torch.tensor([3, 1, 5, 2])  # not the last: an answer that is off by one should not raise
    stub = "return one number, the mean of -log of the probability of what was bought."
    answer = loss(logits.clone(), pos_items.clone())
    if has_shape(answer, (4,)):
        return Verdict(WRONG, "one number for each of the batch; take their mean.")
    read = read_answer(answer, (), "one number for the batch", stub)
    if isinstance(read, Verdict):
        return read
    if verdict := judge(
        lambda made: close(read, cross_entropy_with(logits, pos_items, made)),
        CROSS_ENTROPY_MISTAKES,
        "a model that knows nothing pays log I, one that is sure and right pays 0.",
    ):
        return verdict
    right = cross_entropy_with(logits, pos_items)
    others = {
        "that is the log of the sum in Eq. 20 alone; take the score of the item that was bought off it.": (
            logits.logsumexp(dim=1).mean()
        ),
        "that is the score of what was bought; where is the sum over all candidates of Eq. 20?": -(
            logits.gather(1, pos_items[:, None] - 1).mean()
        ),
        "you took the logarithm to base 2; the paper's is natural.": right / np.log(2),
        "you took the logarithm to base 10; the paper's is natural.": right / np.log(10),
        "you took every bought item in every row; row b has one, `[torch.arange(len(logits)), pos_items - 1]`.": (
            -logits.log_softmax(dim=1)[:, pos_items - 1].mean()
        ),
        "that is the logarithm of the mean probability; take the logarithm of each, then the mean.": (
            -logits.softmax(dim=1).gather(1, pos_items[:, None] - 1).mean().log()
        ),
        "there are two softmaxes in it; `F.cross_entropy` takes the logits, and makes one itself.": (
            F.cross_entropy(logits.softmax(dim=1), pos_items - 1)
        ),
    }
    for message, wrong in others.items():
        if close(read, wrong) or close(read, -wrong):
            return Verdict(WRONG, message)
    return Verdict(WRONG, "the number is not right; take a batch of two and three items, and work it out by hand.")


def cross_entropy_with(logits: torch.Tensor, pos_items: torch.Tensor, mistakes: tuple[str, ...] = ()) -> torch.Tensor:
    """Eq. 20, 21 with ``mistakes`` of ``CROSS_ENTROPY_MISTAKES`` made on purpose."""
    probabilities = logits.softmax(dim=0 if "batch" in mistakes else 1)  # (B, I)
    columns = pos_items if "column" in mistakes else pos_items - 1
    chosen = probabilities.gather(1, columns[:, None])[:, 0]  # (B,)
    losses = chosen if "log" in mistakes else chosen.log()
    losses = losses if "sign" in mistakes else -losses
    return losses.sum() if "sum" in mistakes else losses.mean()


TOTAL_MISTAKES = {
    "id": "those are the terms of the ID alone; add up all three modalities.",
    "contrastive": "you left out the contrastive terms.",
    "reconstruction": "you left out the reconstruction terms.",
    "match": "you left out lambda_match times each match.",
    "gate": "you left out lambda_gate times each gate.",
    "swap": "lambda_match and lambda_gate are swapped.",
    "all": "lambda_c weighs the contrastive terms alone, and you weighed the whole sum with it.",
    "lambda": "you forgot lambda_c before the contrastive terms.",
    "everywhere": "lambda_c weighs the contrastive terms alone.",
    "mean": "that is the mean over the modalities; Eq. 22 takes the sum.",
    "plain match": "you forgot lambda_match before each match.",
    "plain gate": "you forgot lambda_gate before each gate.",
    "image": "the terms of the picture are missing; add up all three modalities.",
    "text": "the terms of the text are missing; add up all three modalities.",
    "default": "those are the default's weights; take them from `config`, here they are others.",
    "paper": "that is Eq. 22 to the letter; the default adds lambda_match times each match and lambda_gate times each "
    "gate.",
    "unweighted": "you forgot lambda_match before each match, and lambda_gate before each gate.",
}
LAMBDAS = {"lambda_c": 0.3, "lambda_match": 0.5, "lambda_gate": 2.0}


def check_total(total: Callable[[dict[str, float], IMECDConfig], float]) -> Verdict:
    """Does ``total(terms, config)`` add up what ``IMECD.loss`` does, Eq. 22 and more? Terms are "modality/term"."""
    terms, config = made_terms(), IMECDConfig(**LAMBDAS)
    stub = "return one number, the sum of Eq. 22 and the default's two terms, each times its weight."
    try:
        answer = total(dict(terms), config)
    except KeyError as error:
        if error.args != ("id/gate",):
            raise
        return Verdict(WRONG, "the ID has no gate, and so no term id/gate; go over the terms that there are.")
    read = read_answer(answer, (), "one number", stub)
    if isinstance(read, Verdict):
        return read
    if verdict := judge(
        lambda made: close(read, torch.tensor(total_with(terms, config, made))),
        TOTAL_MISTAKES,
        "one number, and every module learns from it.",
    ):
        return verdict
    return Verdict(WRONG, "the number is not right; which terms of which modality did you leave out, or weigh twice?")


def made_terms() -> dict[str, float]:
    """Terms of a loss on which every mistake shows: the ID has no gate to teach."""
    names = ("cross_entropy", "reconstruction", "contrastive", "match", "gate")
    values = np.random.default_rng(0).uniform(1, 9, (3, len(names))).round(3)
    terms = {
        f"{modality}/{name}": float(value)
        for modality, row in zip(("id", "text", "image"), values, strict=True)
        for name, value in zip(names, row, strict=True)
    }
    del terms["id/gate"]
    return terms


def total_with(terms: dict[str, float], config: IMECDConfig, mistakes: tuple[str, ...] = ()) -> float:
    """The total of ``terms`` with ``mistakes`` of ``TOTAL_MISTAKES`` made on purpose."""
    config = IMECDConfig() if "default" in mistakes else config
    weights = {"cross_entropy": 1.0, "reconstruction": 1.0, "contrastive": config.lambda_c}
    if "lambda" in mistakes:
        weights["contrastive"] = 1.0
    if "everywhere" in mistakes:
        weights = dict.fromkeys(weights, config.lambda_c)
    if "paper" not in mistakes:
        plain = {"match", "gate"} if "unweighted" in mistakes else {name.removeprefix("plain ") for name in mistakes}
        weights["match"] = 1.0 if "match" in plain else config.lambda_match
        weights["gate"] = 1.0 if "gate" in plain else config.lambda_gate
    if "swap" in mistakes and "match" in weights:
        weights |= {"match": weights["gate"], "gate": weights["match"]}
    weights = {name: weight for name, weight in weights.items() if name not in mistakes}
    left_out = {"text", "image"} if "id" in mistakes else set(mistakes)
    kinds = [(*name.split("/"), value) for name, value in terms.items()]
    total = sum(weights.get(kind, 0.0) * value for modality, kind, value in kinds if modality not in left_out)
    if "all" in mistakes:
        total *= config.lambda_c
    return total / 3 if "mean" in mistakes else total


STOPPING_MISTAKES = {
    "zero": "epochs count from 1; yours count from 0.",
    "late": "you stop an epoch too late: after `patience` epochs without a better one, not `patience` + 1.",
    "early": "you stop an epoch too early: `patience` epochs without a better one have to pass.",
    "previous": "a wait ends with a new *best*, not with an epoch that is better than the one before.",
    "reset": "a new best starts the wait anew: set your count of epochs without a better one back to 0.",
    "fall": "you count falls; what counts is how long ago the best epoch was.",
    "last": "the epoch that is kept is the best so far, not the last that ran.",
    "tie": "a tie is no improvement: the first epoch with the best value is kept.",
    "swap": "the wrong way round: first the epoch that is kept, then the last that is run.",
    "value": "you return N@10 itself; the number of its epoch is wanted.",
    "place": "epochs count from 1; the one that you keep counts from 0.",
    "end": "epochs count from 1; the last of yours counts from 0.",
    "never": "you run all epochs; after `patience` of them without a better one, the run ends.",
    "whole": "the epoch that is kept has to be among those that ran; nobody knows the rest of the curve.",
    "curve": "you looked for the best of the whole curve first; go epoch by epoch, for nobody knows what comes.",
}
STOPPING_CASES = (
    ([0.10, 0.20, 0.15, 0.16, 0.17, 0.30], 2),
    ([0.10, 0.30, 0.20, 0.25, 0.22, 0.21, 0.40, 0.10], 3),
    ([0.10, 0.20, 0.20, 0.20, 0.10], 2),
    ([0.10, 0.12, 0.14, 0.16], 1),
    ([0.30, 0.20, 0.10], 5),
    ([0.30, 0.20, 0.19, 0.40], 2),
    ([0.20, 0.10, 0.30, 0.20, 0.25, 0.31, 0.10, 0.05, 0.04], 2),
)


def check_stopping(stop: Callable[[list[float], int], tuple[int, int]]) -> Verdict:
    """Does ``stop(scores, patience)`` name the epoch that is kept and the last that is run, counted from 1?"""
    answers = call_each(
        lambda scores, patience: stop(list(scores), patience),
        STOPPING_CASES,
        "return two numbers: the epoch that is kept, and the last that is run.",
        lambda scores, patience: f"{scores} and patience {patience}",
    )
    if isinstance(answers, Verdict):
        return answers
    read = []
    for answer in answers:
        numbers = read_answer(answer, (2,), "the epoch that is kept and the last that is run", "")
        if isinstance(numbers, Verdict):
            return numbers
        read.append(tuple(round(number, 4) for number in numbers.tolist()))  # a learner's N@10 may be a float32
    if verdict := judge(
        lambda made: read == stopping_answers(made),
        STOPPING_MISTAKES,
        f"{len(read)} curves, ties and impatience among them.",
    ):
        return verdict
    for (scores, patience), answer, (kept, last) in zip(STOPPING_CASES, read, stopping_answers(), strict=True):
        if answer != (kept, last):
            said = f"for {scores} and patience {patience}, epoch {kept} is kept and epoch {last} is the last"
            return Verdict(WRONG, f"{said}; you say {answer}.")
    raise AssertionError("one answer differs")


def stopping_answers(mistakes: tuple[str, ...] = ()) -> list[tuple[float, int]]:
    """What early stopping does in each of ``STOPPING_CASES``, with mistakes made on purpose."""
    return [stopping_with(scores, patience, mistakes) for scores, patience in STOPPING_CASES]


def stopping_with(scores: Sequence[float], patience: int, mistakes: tuple[str, ...] = ()) -> tuple[float, int]:
    """The epoch that is kept and the last that is run, with ``mistakes`` of ``STOPPING_MISTAKES`` made on purpose."""
    patience += ("late" in mistakes) - ("early" in mistakes)
    kept, waited, last = 1, 0, 1
    for epoch in range(2, len(scores) + 1):
        if waited >= patience and "never" not in mistakes:
            break
        best, before, now = scores[kept - 1], scores[epoch - 2], scores[epoch - 1]
        improved = now >= best if "tie" in mistakes else now > best
        if improved:
            kept = epoch
        if "previous" in mistakes:
            waited = 0 if now > before else waited + 1
        elif "fall" in mistakes:
            waited += now < before
        else:
            waited = (waited if "reset" in mistakes else 0) if improved else waited + 1
        last = epoch
    if "last" in mistakes:
        kept = last
    if {"whole", "curve"} & set(mistakes):
        kept = list(scores).index(max(scores)) + 1
    if "curve" in mistakes:
        last = min(kept + patience, len(scores))
    first = scores[kept - 1] if "value" in mistakes else kept - bool({"zero", "place"} & set(mistakes))
    last -= bool({"zero", "end"} & set(mistakes))
    return (last, first) if "swap" in mistakes else (first, last)


METRIC_MISTAKES = {
    "hit": "H@K: an item at rank K is among the first K.",
    "cut": "N@K: beyond rank K it is 0.",
    "shift": "N@K divides by log2(rank + 1); the first place then counts 1.",
    "nature": "N@K: the logarithm is to base 2.",
    "ten": "N@K: the logarithm is to base 2, not 10.",
    "both": "N@K: an item at rank K is among the first K.",
    "swapped": "H@K comes first, then N@K.",
}
METRIC_CASES = [(rank, k) for rank in (1, 2, 3, 5, 6, 10, 11, 40) for k in (1, 5, 10)]


def check_metrics(metrics: Callable[[int, int], tuple[float, float]]) -> Verdict:
    """Does ``metrics(rank, k)`` give H@K and N@K of one user, whose true item is at that rank, from 1?"""

    def call(rank: int, k: int) -> object:
        try:
            return metrics(rank, k)
        except ZeroDivisionError:
            return np.nan, np.nan

    stub, reads = "return two numbers: H@K and N@K.", []
    answers = call_each(call, METRIC_CASES, stub, lambda rank, k: f"rank {rank} and K = {k}")
    if isinstance(answers, Verdict):
        return answers
    for (rank, _), answer in zip(METRIC_CASES, answers, strict=True):
        read = read_answer(answer, (2,), "H@K and N@K", stub)
        if isinstance(read, Verdict):
            return read
        if not read.double().isfinite().all():
            return Verdict(WRONG, f"at rank {rank} you divide by 0. {METRIC_MISTAKES['shift']}")
        reads.append(read.double())
    read = torch.stack(reads)
    if verdict := judge(
        lambda made: close(read, metrics_with(made)),
        METRIC_MISTAKES,
        f"{len(METRIC_CASES)} cases; N@K is 1 at the first place and falls slowly.",
    ):
        return verdict
    for (rank, k), answer, right in zip(METRIC_CASES, read, metrics_with(), strict=True):
        if not close(answer, right):
            return Verdict(WRONG, f"for rank {rank} and K = {k} it should be {tell(right)}; you say {tell(answer)}.")
    raise AssertionError("one answer differs")


def metrics_with(mistakes: tuple[str, ...] = ()) -> torch.Tensor:
    """H@K and N@K in each of ``METRIC_CASES``, with mistakes of ``METRIC_MISTAKES`` made on purpose; (n, 2)."""
    ranks, ks = torch.tensor(METRIC_CASES, dtype=torch.float64).T
    hits = (ranks < ks if "hit" in mistakes else ranks <= ks).double()
    logs = torch.log2(ranks + (2 if "shift" in mistakes else 1))
    if "nature" in mistakes:
        logs = logs * np.log(2)
    elif "ten" in mistakes:
        logs = logs * np.log10(2)
    found = (ranks < ks if "both" in mistakes else ranks <= ks).double()
    gains = (1.0 if "cut" in mistakes else found) / logs
    return torch.stack([gains, hits] if "swapped" in mistakes else [hits, gains], dim=1)


RANK_MISTAKES = {
    "ties": "a tie counts against the model: whatever scores as high as the true item stands before it.",
    "row": "item i is in place i - 1 of the scores.",
    "zero": "ranks count from 1: the best item has rank 1.",
    "twice": "the true item is among those that score as high as itself; don't count it once more.",
    "worst": "you counted the items that score less; the rank counts those that score more.",
}


def check_rank(rank: Callable[[torch.Tensor, int], int]) -> Verdict:
    """Does ``rank(scores, target)`` give the rank of item ``target``, 1 ... I, by scores (I,), ties against it?"""
    stub, answers = "return one number: how many items score at least as high as the true one.", []
    called = call_each(rank, made_rankings(), stub, lambda scores, target: f"scores {tell(scores)} and item {target}")
    if isinstance(called, Verdict):
        return called
    for answer in called:
        read = read_answer(answer, (), "one rank", stub)
        if isinstance(read, Verdict):
            return read
        if not float(read).is_integer():
            return Verdict(WRONG, f"a rank is a whole number, this is {float(read):g}.")
        answers.append(int(read))
    if verdict := judge(
        lambda made: answers == ranks_with(made),
        RANK_MISTAKES,
        "and a model that scores everything alike gets the last rank, not the first.",
    ):
        return verdict
    bounds = zip(ranks_with(("ties",)), answers, ranks_with(), strict=True)
    if all(low <= answer <= high for low, answer, high in bounds):
        return Verdict(WRONG, RANK_MISTAKES["ties"])
    case = next(n for n, pair in enumerate(zip(answers, ranks_with(), strict=True)) if pair[0] != pair[1])
    scores, target = made_rankings()[case]
    return Verdict(
        WRONG, f"for scores {tell(scores)} and item {target} it should be {ranks_with()[case]}, not {answers[case]}."
    )


def made_rankings() -> list[tuple[torch.Tensor, int]]:
    """Scores (I,) and true items on which every mistake shows; in the last, all score alike."""
    return [
        (torch.tensor([0.3, 0.9, 0.1, 0.7, 0.2]), 4),
        (torch.tensor([0.3, 0.9, 0.1, 0.7, 0.2]), 1),
        (torch.tensor([0.5, 0.8, 0.5, 0.6, 0.5, 0.4]), 3),
        (torch.full((7,), 2.0), 2),
    ]


def ranks_with(mistakes: tuple[str, ...] = ()) -> list[int]:
    """The rank in each of ``made_rankings``, with mistakes of ``RANK_MISTAKES`` made on purpose."""
    ranks = []
    for scores, target in made_rankings():
        true = scores[target if "row" in mistakes else target - 1]
        worse = "worst" in mistakes
        before = (scores < true if worse else scores > true).sum()
        equal = (scores == true).sum() if "ties" not in mistakes else 1
        ranks.append(int(before + equal) - ("zero" in mistakes) + ("twice" in mistakes))
    return ranks


SAMPLING_MISTAKES = {
    "itself": "of I items, one is the true one: the others are I - 1.",
    "one": "you count who stands before it; the rank is one more.",
    "all": "rank - 1 items stand before it, not rank.",
    "absolute": "only a share of those before it is drawn: num_negatives of I - 1.",
}
SAMPLING_CASES = ((1, 1200, 99), (12, 1200, 99), (100, 1200, 99), (600, 1200, 19), (31, 50, 49))


def check_sampling(expected: Callable[[int, int, int], float]) -> Verdict:
    """Does ``expected(rank, num_items, num_negatives)`` give the mean rank among the true item and random others?"""
    stub, reads = "return one number: 1 + how many of the items before it are drawn, on average.", []
    answers = call_each(expected, SAMPLING_CASES, stub, sampling_case)
    if isinstance(answers, Verdict):
        return answers
    for answer in answers:
        read = read_answer(answer, (), "one number", stub)
        if isinstance(read, Verdict):
            return read
        reads.append(read.double())
    read = torch.stack(reads)
    if verdict := judge(
        lambda made: close(read, sampling_with(made)),
        SAMPLING_MISTAKES,
        "and from rank 1 nobody can fall, whatever is drawn.",
    ):
        return verdict
    for case, answer, right in zip(SAMPLING_CASES, read.tolist(), sampling_with().tolist(), strict=True):
        if not np.isclose(answer, right):
            return Verdict(WRONG, f"for {sampling_case(*case)} it should be {right:.2f}; you say {answer:.2f}.")
    raise AssertionError("one answer differs")


def sampling_case(rank: int, items: int, negatives: int) -> str:
    """One of ``SAMPLING_CASES`` in words."""
    return f"rank {rank} of {items:,} and {negatives} random items"


def sampling_with(mistakes: tuple[str, ...] = ()) -> torch.Tensor:
    """The mean rank in each of ``SAMPLING_CASES``, with mistakes of ``SAMPLING_MISTAKES`` made on purpose."""
    ranks, items, negatives = torch.tensor(SAMPLING_CASES, dtype=torch.float64).T
    before = ranks if "all" in mistakes else ranks - 1
    share = negatives / (items if "itself" in mistakes else items - 1)
    if "absolute" in mistakes:
        share = torch.ones_like(share)
    return before * share + (0 if "one" in mistakes else 1)


INTERVAL_MISTAKES = {
    "unpaired": "you drew shoppers for each system on its own; draw them once, and take both values of each.",
    "users": "that is the spread of the shoppers; the interval is of their mean: resample, take means, then quantiles.",
    "sign": "it is first minus second; yours is the other way round.",
    "first": "that is the interval of the first system alone; it is the difference that is asked for.",
    "level": "95% leaves 2.5% on either side; your quantiles leave 5%.",
}


def check_interval(
    interval: Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[float, float]],
) -> Verdict:
    """Does ``interval(first, second, rng)`` give the 95% paired bootstrap interval of the difference of two means?

    First and second are a metric of each user, (U,), the users in one order.
    """
    first, second = made_values()
    stub = "return two numbers: the 2.5% and the 97.5% quantile of the resampled mean differences."
    answer = interval(first.copy(), second.copy(), np.random.default_rng(0))
    read = read_answer(answer, (2,), "the lower and the upper end", stub)
    if isinstance(read, Verdict):
        return read
    low, high = read.tolist()
    if low > high:
        return Verdict(WRONG, "the lower end comes first.")
    known = {mistake: interval_with(mistake) for mistake in ("", *INTERVAL_MISTAKES)}
    nearest = min(known, key=lambda mistake: np.abs(np.subtract(known[mistake], (low, high))).max())
    left, right = known[nearest]
    if np.allclose((low, high), (left, right), atol=0.1 * (right - left)):
        again = interval(first.copy(), second.copy(), np.random.default_rng(1))
        if not nearest and np.array_equal(np.asarray(again, float), read.numpy()):
            return Verdict(
                WRONG, "whatever chance draws, your ends are the same: resample the users, and draw with `rng`."
            )
        if not nearest:
            return Verdict(RIGHT, f"{low:+.3f} to {high:+.3f}: pairing takes the ease of a shopper out.")
        return Verdict(WRONG, INTERVAL_MISTAKES[nearest])
    left, right = known[""]
    return Verdict(WRONG, f"you say {low:+.3f} to {high:+.3f}; it should be about {left:+.3f} to {right:+.3f}.")


def made_values() -> tuple[np.ndarray, np.ndarray]:
    """Two systems (U,) that find the same users easy; on them every mistake of ``check_interval`` shows."""
    rng = np.random.default_rng(0)
    ease = rng.uniform(0, 1, 400)
    return ease + rng.normal(0.06, 0.12, 400), ease


def interval_with(mistake: str = "") -> tuple[float, float]:
    """The interval of ``made_values``, by the normal approximation, with a mistake made on purpose."""
    first, second = made_values()
    difference, root = first - second, len(first) ** 0.5
    centre, error = difference.mean(), difference.std() / root
    if mistake == "unpaired":
        error = np.hypot(first.std(), second.std()) / root
    elif mistake == "users":
        low, high = np.quantile(difference, (0.025, 0.975))
        return float(low), float(high)
    elif mistake == "sign":
        centre = -centre
    elif mistake == "first":
        centre, error = first.mean(), first.std() / root
    reach = (1.645 if mistake == "level" else 1.96) * error
    return float(centre - reach), float(centre + reach)


FOREIGN_ORDERS, FOREIGN_PRODUCTS = ("when", "client", "ean", "price"), ("code", "label", "brand", "group", "picture")
"""The columns of a shop's two tables, for ``check_columns``."""
NAMED = {
    "user_id": "client",
    "item_id": "ean",
    "timestamp": "when",
    "items_item_id": "code",
    "title": "label",
    "category": "group",
    "image": "picture",
}
"""How they are to be named; ``brand`` is called as it is here."""
COLUMN_MISTAKES = {
    "items_item_id": "the products call the article `code`, the orders `ean`: the key for that is `items_item_id`.",
    "title": "without a `title` no product has a name.",
    "category": "`group` is a category, and the text encoder reads it; name it.",
    "image": "name the column of pictures, or they are looked for by the article's number.",
}


def check_columns(columns: object) -> Verdict:
    """Does ``columns``, for ``prepare_csv``, say what ``FOREIGN_ORDERS`` and ``FOREIGN_PRODUCTS`` call our columns?"""
    if columns is None or columns is ...:
        return Verdict(TO_DO, "write a dictionary: our name of a column, and theirs.")
    if not isinstance(columns, dict):
        return Verdict(WRONG, f"a dictionary is wanted, this is a {type(columns).__name__}.")
    if listed := [k for k, theirs in columns.items() if not isinstance(theirs, str)]:
        return Verdict(WRONG, f"{listed[0]!r} needs the name of one column, in quotes.")
    known = {*NAMED, "brand", "description"}
    columns = {k: theirs for k, theirs in columns.items() if (k, theirs) != ("brand", "brand")}  # that is no news
    if set(columns) & set(NAMED.values()) and set(columns.values()) & set(NAMED):
        return Verdict(WRONG, "the wrong way round: our names are the keys, theirs the values.")
    if strange := set(columns) - known:
        return Verdict(
            WRONG, f"there is no column {min(map(str, strange))!r} here; ours are {', '.join(sorted(known))}."
        )
    if columns.get("user_id") == NAMED["item_id"] and columns.get("item_id") == NAMED["user_id"]:
        return Verdict(WRONG, "who bought, and what was bought: you have them swapped.")
    for ours, theirs in NAMED.items():
        if ours not in columns:
            return Verdict(WRONG, COLUMN_MISTAKES.get(ours, f"nothing is said of `{ours}`; it has to be there."))
        if columns[ours] != theirs:
            return Verdict(WRONG, f"`{ours}` is {columns[ours]!r} by you; look at the two lists once more.")
    if others := set(columns) - set(NAMED):
        return Verdict(WRONG, f"no column is a {min(others)} by another name; leave it out.")
    return Verdict(RIGHT, "seven names; `brand` is called so on both sides and needs none.")


KEPT_MISTAKES = {
    "source": "the log speaks of two files; take the rows of orders.csv alone.",
    "header": "line 1 is the names of the columns: the first order is on line 2.",
    "place": "a line is no place in the list: the first order, in place 0, is on line 2.",
    "dropped": "these are the orders that were dropped; those that were kept are wanted.",
}


def check_kept(kept: Callable[[list[str], list[tuple[str, int]]], list[str]]) -> Verdict:
    """Does ``kept(orders, dropped)`` give the orders of a file that are not in the log, in their order?

    The log has (file, line) of each row that was left out; a file's first line names its columns.
    """
    orders, log = made_log()
    answer = kept(list(orders), list(log))
    if answer is None:
        return Verdict(TO_DO, "return the orders that are kept, in their order.")
    if not isinstance(answer, list | tuple):
        return Verdict(WRONG, f"a list of orders is wanted, this is a {type(answer).__name__}.")
    if verdict := judge(
        lambda made: list(answer) == kept_with(made),
        KEPT_MISTAKES,
        f"{len(orders)} in = {len(kept_with())} kept + {len(orders) - len(kept_with())} dropped.",
    ):
        return verdict
    if sorted(map(str, answer)) == sorted(kept_with()):
        return Verdict(WRONG, "the right orders in another order; leave them as they are in the file.")
    return Verdict(WRONG, f"{len(kept_with())} of {len(orders)} orders are kept; you keep {len(answer)}, or others.")


def made_log() -> tuple[list[str], list[tuple[str, int]]]:
    """Orders, and a log of dropped rows, on which every mistake of ``check_kept`` shows."""
    lost = [("orders.csv", 3), ("products.csv", 5), ("orders.csv", 4), ("orders.csv", 9), ("products.csv", 2)]
    return [f"order {letter}" for letter in "FBGADHCE"], lost


def kept_with(mistakes: tuple[str, ...] = ()) -> list[str]:
    """The orders of ``made_log`` that are kept, with mistakes of ``KEPT_MISTAKES`` made on purpose."""
    orders, log = made_log()
    lines = {line for source, line in log if "source" in mistakes or source == "orders.csv"}
    first = 0 if "place" in mistakes else 1 if "header" in mistakes else 2
    return [order for line, order in enumerate(orders, start=first) if (line in lines) == ("dropped" in mistakes)]


CORE_MISTAKES = {
    "once": "one pass is not enough: whoever leaves takes purchases along. Go on until nobody leaves.",
    "users": "you looked at the users alone; items need k purchases, too.",
    "items": "you looked at the items alone; users need k purchases, too.",
    "strict": "k purchases are enough: `>=`, not `>`.",
    "order": "leave the purchases in their order.",
}


def check_five_core(core: Callable[[list[tuple[str, str]], int], list[tuple[str, str]]]) -> Verdict:
    """Does ``core(purchases, k)`` keep those (user, item) whose user and item have k of those that are kept?"""
    purchases, k = made_purchases(), 2
    answer = core(list(purchases), k)
    if answer is None:
        return Verdict(TO_DO, "return the purchases that are left when nobody has fewer than k.")
    try:
        read = [tuple(purchase) for purchase in answer]
    except TypeError:
        return Verdict(WRONG, f"a list of (user, item) is wanted, this is a {type(answer).__name__}.")
    if read == purchases:
        return Verdict(WRONG, "these are all of them; the user *and* the item need k, and some have fewer.")
    if not read:
        return Verdict(WRONG, f"for k = {k} nothing is left of yours; do you use the `k` that is given?")
    if verdict := judge(
        lambda made: read == core_with(made),
        CORE_MISTAKES,
        f"of {len(purchases)} purchases {len(core_with())} are left, after several rounds.",
    ):
        return verdict
    if len(set(read)) == len(read) and set(read) == set(core_with()):
        return Verdict(WRONG, CORE_MISTAKES["order"])
    strangers = [purchase for purchase in read if purchase not in purchases]
    if strangers:
        return Verdict(WRONG, f"{strangers[0]} is no purchase of the list; return some of those you were given.")
    if set(read) > set(core_with()):
        return Verdict(WRONG, CORE_MISTAKES["once"])
    return Verdict(
        WRONG, f"for k = {k}, {len(core_with())} of {len(purchases)} purchases are left; you keep {len(read)}."
    )


def made_purchases() -> list[tuple[str, str]]:
    """Purchases of which the core of 2 needs several rounds, and on which every mistake of it shows."""
    text = "D4 P8 A1 B2 Q8 C3 A2 R9 E5 B1 P9 C4 C1 R0 F3 A3 Q0 D5 G6 P0 B3 H1 R8 G1 I6 Q9 H7"
    return [(word[0], word[1]) for word in text.split()]


def core_with(mistakes: tuple[str, ...] = (), k: int = 2) -> list[tuple[str, str]]:
    """The core of ``made_purchases``, with mistakes of ``CORE_MISTAKES`` made on purpose."""
    left = made_purchases()
    k += "strict" in mistakes
    sides = [side for side, other in ((0, "items"), (1, "users")) if other not in mistakes]
    while True:
        counts = [Counter(purchase[side] for purchase in left) for side in (0, 1)]
        kept = [purchase for purchase in left if all(counts[side][purchase[side]] >= k for side in sides)]
        if len(kept) == len(left) or "once" in mistakes:
            return sorted(kept) if "order" in mistakes else kept
        left = kept


SPLIT_MISTAKES = {
    "file": "the order of the file is no order of time; sort by the time first.",
    "descending": "you sorted the latest first; the test item is the latest.",
    "swap": "the latest is the test item, the one before it validates: you have them swapped.",
    "leak": "the two that are held out are still in the history that is trained on.",
    "valid": "the validation item is still in the history that is trained on.",
    "first": "you held out the earliest; the latest two are wanted.",
    "ties": "of two in one basket the one that stands first in the file comes first.",
}
SPLIT_CASE = (list("FEBADCG"), [60, 40, 20, 10, 40, 30, 50])
"""A shopper's items and their times as they stand in the file; E and D were in one basket."""


def check_split(split: Callable[[list[str], list[int]], tuple[list[str], str, str]]) -> Verdict:
    """Does ``split(items, times)`` give the training history, the validation item and the test item of a shopper?"""
    items, times = SPLIT_CASE
    answer = split(list(items), list(times))
    if answer is None:
        return Verdict(TO_DO, "return three things: the history, the validation item and the test item.")
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        return Verdict(WRONG, "three things are wanted: the history, the validation item and the test item.")
    if isinstance(answer[0], str) or not all(isinstance(item, str) for item in answer[1:]):
        return Verdict(WRONG, "the history is a list of items, the other two are one item each.")
    read = (list(answer[0]), *answer[1:])
    right = "what is tested lies after all that is trained on of this customer."
    if verdict := judge(lambda made: read == split_with(made), SPLIT_MISTAKES, right):
        return verdict
    history, valid, test = split_with()
    said = f"{' '.join(history)}, then {valid} and {test}"
    return Verdict(WRONG, f"for items {' '.join(items)} at {times} it should be {said}; you say {read}.")


def split_with(mistakes: tuple[str, ...] = ()) -> tuple[list[str], str, str]:
    """The split of ``SPLIT_CASE``, with mistakes of ``SPLIT_MISTAKES`` made on purpose."""
    items, times = SPLIT_CASE
    places = range(len(items))
    if "file" not in mistakes:
        sign = -1 if "descending" in mistakes else 1
        places = sorted(places, key=lambda place: (sign * times[place], -place if "ties" in mistakes else place))
    bought = [items[place] for place in places]
    if "first" in mistakes:
        test, valid, *history = bought
    else:
        *history, valid, test = bought
    if "leak" in mistakes:
        history = bought
    elif "valid" in mistakes:
        history = [*history, valid]
    return (history, test, valid) if "swap" in mistakes else (history, valid, test)
