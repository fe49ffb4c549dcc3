"""Training any model: Adam, early stopping on validation N@10, exact resume."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

from imecd_lite.checkpoint import save_weights
from imecd_lite.config import TrainConfig
from imecd_lite.dataset import Batch, Dataset, train_batches
from imecd_lite.diagnostics import perplexity
from imecd_lite.errors import InputError
from imecd_lite.evaluate import device_of, metrics, target_ranks
from imecd_lite.files import content_hash, read_tensors, write_rows, write_tensors
from imecd_lite.model import LossOutput, Recommender
from imecd_lite.processes import gather, is_main, mean_gradients, mixed_precision, num_processes, process_index, total

STATE_FILE = "training_state.safetensors"


@dataclass
class History:
    """What training did, a row an epoch: loss, each of its terms, validation metrics, seconds."""

    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The first epoch with the highest validation N@10, counted from 1; 0 before any."""
        scores = [row["valid_ndcg@10"] for row in self.rows]
        return scores.index(max(scores)) + 1 if scores else 0


def train(
    model: Recommender,
    dataset: Dataset,
    config: TrainConfig,
    output: Path | str | None = None,
    resume: bool = False,
    progress: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_step: Callable[[LossOutput], None] | None = None,
) -> History:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    From then on this thread, and those it starts, flush denormal numbers to zero on a CPU: a selector that is sure of
    itself makes so many that an epoch takes ten times as long.

    All randomness follows from (seed, epoch), so training that was interrupted and resumed ends exactly as training
    that was not.

    Args:
        model: on the device to train on.
        dataset: prefixes of its histories are learnt, its validation items decide when to stop.
        config: the settings.
        output: folder for ``model.safetensors`` (the best epoch), ``history.csv`` and the state to resume from;
            None writes nothing.
        resume: go on from the state in ``output`` if there is one.
        progress: show a bar.
        on_epoch: called with each row of the history.
        on_step: called after each step with its loss; the step's gradients are still on the parameters.

    Raises:
        InputError: ``output`` holds a run that does not match, or the loss is not a number.
    """
    torch.set_flush_denormal(True)
    output = Path(output) if output else None
    learns = any(p.requires_grad for p in model.parameters())
    optimizer = make_optimizer(model, config) if learns else None
    history, best = History(), {}
    state_file = output / STATE_FILE if output else None
    if resume and state_file and state_file.exists():
        history, best = load_state(state_file, model, optimizer, config, dataset)
        if is_main():  # whatever has become of the files since
            save_weights(output, best, config.checkpoint_dtype)
            write_rows(output / "history.csv", history.rows)
    else:
        model.fit_statistics(dataset)
    split, device = dataset.split("valid"), device_of(model)
    while not finished(history, config, learns):
        start, epoch = time.perf_counter(), len(history.rows) + 1
        row = {"epoch": epoch}
        if learns:
            row |= train_epoch(model, optimizer, dataset, config, epoch, device, progress, on_step)
        valid = metrics(target_ranks(model, dataset, split, seed=config.seed))
        row |= {f"valid_{name}": valid[name] for name in ("hit@10", "ndcg@10")}
        row["seconds"] = round(time.perf_counter() - start, 2)
        history.rows.append(row)
        improved = history.best_epoch == epoch
        if improved:
            best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if output and is_main():
            if improved:
                save_weights(output, best, config.checkpoint_dtype)
            write_rows(output / "history.csv", history.rows)
            save_state(state_file, model, optimizer, best, history, config, dataset)  # last: it says the epoch is done
        if on_epoch:
            on_epoch(row)
    model.load_state_dict(best)
    model.eval()
    return history


def finished(history: History, config: TrainConfig, learns: bool) -> bool:
    """Whether the epochs are used up or validation has not improved for ``patience`` of them."""
    done = len(history.rows)
    return done >= (config.epochs if learns else 1) or done - history.best_epoch >= config.patience


def make_optimizer(model: Recommender, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam over all that a model learns; see ``Recommender.WEIGHT_DECAY``."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, config.learning_rate, weight_decay=model.WEIGHT_DECAY, fused=True)


def training_step(
    model: Recommender, optimizer: torch.optim.Optimizer, batch: Batch, generator: torch.Generator
) -> LossOutput:
    """One step on a batch, which is on the model's device; the gradients stay on the parameters."""
    with torch.autocast(batch.pos_items.device.type, torch.bfloat16, enabled=mixed_precision() == "bf16"):
        output = model.loss(batch, generator)
    optimizer.zero_grad(set_to_none=True)
    output.total.backward()
    mean_gradients(model)
    optimizer.step()
    model.after_step(output)
    return output


def train_epoch(
    model: Recommender,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    config: TrainConfig,
    epoch: int,
    device: torch.device,
    progress: bool = False,
    on_step: Callable[[LossOutput], None] | None = None,
) -> dict[str, float]:
    """One pass over the training prefixes: means over the examples of the loss and its terms, and the use of codes.

    ``<modality>/code_perplexity`` and ``<modality>/codes_used`` are of the choices of the whole epoch.
    """
    model.train()
    seed = config.seed * 1_000_003 + epoch
    generator = torch.Generator(device).manual_seed(seed)
    sums, count = defaultdict(float), 0  # sums stay on the device until the epoch is over
    choices = defaultdict(list)  # by modality: the code of each example
    with torch.random.fork_rng():
        # dropout draws from the global generator; no epoch of another process has the same numbers
        torch.manual_seed(seed + process_index() * 10_000_019)
        model.on_epoch_start(generator)
        batches = train_batches(dataset, config.batch_size, config.seed, epoch, config.max_prefixes_per_user)
        for batch in tqdm(batches, desc=f"epoch {epoch}", unit="batch", leave=False, disable=not progress):
            size = len(batch.pos_items) // num_processes() * num_processes()  # what can't be shared out is left out
            if not size:
                continue
            output = training_step(model, optimizer, batch[:size].to(device), generator)
            count += size
            for name, value in {"loss": output.total.detach(), **output.terms}.items():
                sums[name] += value.double() * size
            for name, chunks in output.chosen.items():
                choices[name] += [indices for _, indices in chunks]
            if on_step:
                on_step(output)
    means = {name: total(value).item() / count / num_processes() for name, value in sums.items()}
    if not math.isfinite(means["loss"]):
        raise InputError(f"The loss is {means['loss']} in epoch {epoch}; try a lower learning_rate.")
    for name, chunks in choices.items():
        if not chunks:
            continue
        indices = gather(torch.cat(chunks)).numpy(force=True)
        means[f"{name}/code_perplexity"] = perplexity(indices)
        means[f"{name}/codes_used"] = len(set(indices.tolist()))
    return means


def run_settings(model: Recommender, config: TrainConfig, dataset: Dataset) -> dict:
    """What must be the same when a run is resumed: everything but how long it may last."""
    kept = model.state_dict()
    given = {name: buffer.cpu() for name, buffer in model.named_buffers() if name not in kept}  # text, pictures
    settings = {"model": type(model).__name__, "dataset": dataset.fingerprint} | dataclasses.asdict(config)
    settings |= dataclasses.asdict(model.config) if model.config else {}
    settings |= {"mixed_precision": mixed_precision(), "features": content_hash(given, {})[:16]}
    return {name: value for name, value in settings.items() if name not in ("epochs", "patience")}


def save_state(
    path: Path,
    model: Recommender,
    optimizer: torch.optim.Optimizer | None,
    best: dict[str, torch.Tensor],
    history: History,
    config: TrainConfig,
    dataset: Dataset,
) -> None:
    """Write all that ``load_state`` needs as one file, atomically."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for index, moments in (optimizer.state_dict()["state"] if optimizer else {}).items():
        tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in moments.items()}
    write_tensors(
        path, tensors, {"rows": json.dumps(history.rows), "settings": json.dumps(run_settings(model, config, dataset))}
    )


def load_state(
    path: Path,
    model: Recommender,
    optimizer: torch.optim.Optimizer | None,
    config: TrainConfig,
    dataset: Dataset,
) -> tuple[History, dict[str, torch.Tensor]]:
    """Put model and optimiser back to where ``save_state`` left them; returns the history and the best weights."""
    tensors, metadata = read_tensors(path, f"delete {path.parent} and train again, or name another --output")
    if "settings" not in metadata:
        raise InputError(f"{path} is not the state of a training run; delete it and train again.")
    now = run_settings(model, config, dataset)
    then = {"mixed_precision": "no", "features": now["features"]} | json.loads(metadata["settings"])
    for name, value in now.items():
        if then.get(name) != value:
            raise InputError(
                f"{path.parent} was trained with {name} {then.get(name)!r}, not {value!r}; resume with that."
            )
    groups: dict[str, dict[str, torch.Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        group, rest = name.split("/", 1)
        groups[group][rest] = tensor
    model.load_state_dict(groups["model"])
    if optimizer:
        moments: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, tensor in groups["optimizer"].items():
            index, moment = name.split("/")
            moments[int(index)][moment] = tensor
        optimizer.load_state_dict({"state": dict(moments), "param_groups": optimizer.state_dict()["param_groups"]})
    return History(json.loads(metadata["rows"])), groups["best"]


def replay(scores: Sequence[float], patience: int) -> tuple[int, int]:
    """Early stopping on a curve that is known: the epoch that is kept and the last that is run, counted from 1.

    Args:
        scores: validation N@10 after each epoch, as many as there could be.
        patience: as in ``TrainConfig``.
    """
    config, history = TrainConfig(epochs=len(scores), patience=patience), History()
    while not finished(history, config, learns=True):
        history.rows.append({"valid_ndcg@10": scores[len(history.rows)]})
    return history.best_epoch, len(history.rows)
