"""The command line: ``python -m imecd_lite COMMAND``, and ``--help`` for the commands and their options."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import sys
import time
import typing
from pathlib import Path

from imecd_lite.config import BUNDLED_DATA, PRESETS, IMECDConfig, TrainConfig, field_types, from_dict
from imecd_lite.errors import InputError, is_out_of_memory

REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room in your quota",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "give yourself the right to it, or name another folder",
    errno.EPERM: "give yourself the right to it, or name another folder",
}
"""What helps against a fault of the disk."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (the doctor found a fault), 2 (bad input), 130 (interrupted)."""
    parser, commands = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        command = commands[options.command]
        accepted = ", ".join(action.option_strings[0] for action in command._actions if action.option_strings)
        command.error(f"{unknown[0]} is not an option of {options.command}; the options are {accepted}")
    try:
        if options.run is not run_train and os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError("WORLD_SIZE is set, and only train shares its work; start this without a launcher.")
        return options.run(options) or 0
    except InputError as error:
        print(f"imecd_lite {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output has enough of it, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where, reason = error.filename or "A file", error.strerror or error
        remedy = REMEDIES.get(error.errno, "mend that")
        again = "the command again, with --resume" if "resume" in options else "the command again"
        print(
            f"imecd_lite {options.command}: {where} can't be read or written ({reason}); {remedy} and give {again}; "
            "what was finished is kept.",
            file=sys.stderr,
        )
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batched = any(action.dest == "batch_size" for action in commands[options.command]._actions)
        remedy = "give a smaller batch_size" if batched else "close other programs, use --device cpu"
        print(
            f"imecd_lite {options.command}: this needs more memory than there is; {remedy}, or give smaller numbers "
            "where you gave larger ones than the defaults; what was finished is kept.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"\nimecd_lite {options.command}: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser and its commands by name."""
    parser = argparse.ArgumentParser("python -m imecd_lite", description=__doc__, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True)
    commands = {}

    def command(run, help: str, subparsers=subparsers) -> argparse.ArgumentParser:
        name = run.__name__.removeprefix("run_").replace("_", " ")  # "prepare amazon": two words to type
        commands[name] = subparsers.add_parser(name.split()[-1], help=help, description=help, allow_abbrev=False)
        commands[name].set_defaults(run=run, command=name)
        return commands[name]

    command(run_doctor, "check this installation, offline")

    shop = command(run_shop, "generate the teaching shop")
    shop.add_argument("--output", type=path, required=True, help="folder to make")
    shop.add_argument("--seed", type=seed, default=0)

    help = "turn data from elsewhere into a dataset folder"
    prepare = subparsers.add_parser("prepare", help=help, description=help, allow_abbrev=False)
    kinds = prepare.add_subparsers(dest="kind", required=True)

    own = command(run_prepare_csv, "your own shop's tables, CSV or Parquet, and pictures", kinds)
    own.add_argument("--interactions", type=path, required=True, help="file: who bought what and when")
    own.add_argument("--items", type=path, help="file: what the items are; without it an ids-only dataset")
    own.add_argument("--images", type=path, help="folder of pictures, named in a column or <item id>.jpg, .png ...")
    own.add_argument("--output", type=path, required=True, help="folder to make")
    for name, default in {"user": "user_id", "item": "item_id", "timestamp": "timestamp"}.items():
        own.add_argument(f"--{name}-column", metavar="NAME", help=f"what --interactions calls it; default: {default}")
    own.add_argument("--items-item-column", metavar="NAME", help="what --items calls it; default: as --item-column")
    for name in ("title", "brand", "category", "description", "image"):
        own.add_argument(f"--{name}-column", metavar="NAME", help=f"what --items calls it; default: {name}")

    amazon = command(run_prepare_amazon, "Amazon review data, release of 2018, with pictures", kinds)
    amazon.add_argument("--output", type=path, required=True, help="folder to make")
    amazon.add_argument("--dataset", help="Toys_and_Games, Video_Games, Musical_Instruments, Grocery_and_Gourmet_Food")
    amazon.add_argument("--reviews", type=path, help="5-core reviews, gzip or plain; default: download")
    amazon.add_argument("--meta", type=path, help="metadata, gzip or plain; default: download")
    amazon.add_argument("--base-url", help="of a mirror with the folders categoryFilesSmall and metaFiles2")

    pretrain = command(run_pretrain, "train the tiny text and image encoders")
    pretrain.add_argument("--data", type=path, required=True, help="dataset folder")
    pretrain.add_argument("--output", type=path, required=True, help="folder for the encoders")
    pretrain.add_argument("--seed", type=seed, default=0)

    encode = command(run_encode, "turn titles and pictures into feature tables")
    train = command(run_train, "train a model")
    tune = command(run_tune, "search for settings on the validation items")
    evaluate = command(run_evaluate, "measure a trained model")
    recommend = command(run_recommend, "recommend items to one user")
    diagnose = command(run_diagnose, "measure what each module of a trained IMECD does")
    compare = command(run_compare, "compare two systems, each over its seeds, with a paired interval")
    reproduce = command(
        run_reproduce, "run a table or figure of the paper on any dataset, at most 60 epochs each unless told otherwise"
    )
    benchmark = command(run_benchmark, "measure how fast a model trains and recommends here")
    for subparser in (encode, train, tune, evaluate, recommend, diagnose, reproduce, benchmark):
        required = {"default": BUNDLED_DATA / "shop"} if subparser is benchmark else {"required": True}
        subparser.add_argument("--data", type=path, help="dataset folder", **required)
        subparser.add_argument("--features", type=path, help="feature file, for data folders that are read-only")
        subparser.add_argument("--text-encoder", type=encoder, help="hub name or folder; default: the bundled one")
        subparser.add_argument("--image-encoder", type=encoder, help="hub name or folder; default: the bundled one")
        subparser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    train.add_argument("--output", type=path, required=True, help="folder for the checkpoint")
    train.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    tune.add_argument("--output", type=path, required=True, help="folder for the trials; one that holds some goes on")
    tune.add_argument("--trials", type=int, required=True, help="how many, the first with the settings given here")
    benchmark.add_argument("--runs", type=int, default=3, help="of which each figure is the median")
    benchmark.add_argument(
        "--made-up",
        type=int,
        nargs=3,
        metavar=("USERS", "ITEMS", "LENGTH"),
        help="random data of this size instead of --data, without the naive variant",
    )
    benchmark.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    for subparser in (train, tune, benchmark):
        subparser.add_argument(
            "--model",
            default="imecd",
            help="imecd, with the defaults below, or another of Table II, with its own; a wrong name lists all",
        )
        subparser.add_argument(
            "--preset", choices=tuple(PRESETS), default="default", help="literal: the paper to the letter"
        )
        for config in (IMECDConfig, TrainConfig):
            add_fields(subparser, config)

    reproduce.add_argument("target", help="table2, table3, figure4, figure5, figure6 or figure7")
    reproduce.add_argument("--output", type=path, required=True, help="folder for the result; a grid in it goes on")
    reproduce.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    reproduce.add_argument("--trials", type=int, default=4, help="of settings on the validation items, for each system")
    reproduce.add_argument(
        "--models", nargs="+", action="extend", help="rows of table2, such as sasrec or imecd-literal; default: all"
    )
    for config in (IMECDConfig, TrainConfig):
        add_fields(reproduce, config, skip=("seed", "epochs"), default="what each system has")
    reproduce.add_argument("--epochs", type=int, default=argparse.SUPPRESS, help="at most, default: 60")

    for subparser in (evaluate, recommend, diagnose):
        subparser.add_argument("--checkpoint", type=path, required=True, help="folder that training wrote")
    for subparser in (evaluate, recommend):
        subparser.add_argument("--seed", type=seed, default=0, help="of the reverse diffusion")
        subparser.add_argument("--mask-seen", action="store_true", help="leave out what the user already has")
    evaluate.add_argument("--split", choices=("valid", "test"), default="test")
    diagnose.add_argument("--split", choices=("valid", "test"), default="valid")
    several = {"type": path, "nargs": "+", "action": "extend", "required": True}
    compare.add_argument("--runs", help="run folders of one system, a seed each", **several)
    compare.add_argument("--against", help="run folders of the other", **several)
    compare.add_argument("--split", choices=("valid", "test"), default="test")
    compare.add_argument("--metric", default="ndcg@10", help="hit@K or ndcg@K")
    evaluate.add_argument("--ranks", type=path, help="also write each user's rank of the true item to this CSV")
    recommend.add_argument("--user", required=True, help="user id")
    recommend.add_argument("--top-k", type=int, help="how many; default: 10, or all where there are fewer")
    recommend.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser, commands


def add_fields(
    parser: argparse.ArgumentParser, config: type, skip: tuple[str, ...] = (), default: str | None = None
) -> None:
    """One option for each field of a config dataclass but ``skip``, its name in kebab-case, absent unless given.

    Args:
        default: what --help calls the value when none is given; the field's own default unless given.
    """
    hints = typing.get_type_hints(config)
    for field in (field for field in dataclasses.fields(config) if field.name not in skip):
        option, types = "--" + field.name.replace("_", "-"), field_types(hints[field.name])
        kind = types[0]
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
            continue

        def parse(text: str, kind=kind, types=types):
            return None if type(None) in types and text == "none" else kind(text)

        parse.__name__ = kind.__name__  # argparse names it when the value is of another type
        parser.add_argument(
            option,
            type=parse,
            default=argparse.SUPPRESS,
            metavar="|".join("none" if one is type(None) else one.__name__ for one in types),
            help=f"default: {default or field.default}",
        )


def path(text: str) -> Path:
    """An argument that names a file or folder."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!a} is not UTF-8; rename it") from None
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; name a file or folder")
    try:
        return Path(text).expanduser()  # as in --output=~/runs, which a shell leaves as it is
    except RuntimeError:  # a name that begins so, and is nobody's home
        return Path(text)


def encoder(text: str) -> str:
    """An argument that names a folder, or a model on the hub."""
    return str(path(text)) if text.startswith("~") else text


def seed(text: str) -> int:
    """An argument that seeds a generator of random numbers."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**31 - 1}")
    return int(text)


def pick_configs(options: argparse.Namespace) -> tuple[IMECDConfig, TrainConfig]:
    """Both configs: the model's published settings, the preset's above them, the options that were given on top."""
    from imecd_lite.checkpoint import model_class

    values = {**model_class(options.model).DEFAULTS, **PRESETS[options.preset], **vars(options)}
    kinds = (IMECDConfig, TrainConfig)
    return tuple(
        kind(**{f.name: values[f.name] for f in dataclasses.fields(kind) if f.name in values}) for kind in kinds
    )


def pick_device(name: str) -> str:
    """ "auto" -> "cuda" when there is one, else "cpu"."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("There is no CUDA device here; use --device auto or cpu.")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def open_data(options: argparse.Namespace, device: str, max_length: int = 50) -> tuple:
    """The dataset and features that the options name."""
    from imecd_lite.dataset import load_dataset
    from imecd_lite.encoders import load_features

    dataset = load_dataset(options.data, max_length)
    features = load_features(dataset, options.text_encoder, options.image_encoder, file=options.features, device=device)
    return dataset, features


def run_doctor(options: argparse.Namespace) -> int:
    """Check the installation."""
    from imecd_lite.doctor import doctor

    return doctor()


def run_shop(options: argparse.Namespace) -> None:
    """Generate the teaching shop."""
    from imecd_lite.shop import generate_shop

    generate_shop(options.output, options.seed)
    print(f"Wrote {options.output}.")


def run_prepare_csv(options: argparse.Namespace) -> None:
    """Prepare a shop's own tables."""
    from imecd_lite.dataset import load_dataset
    from imecd_lite.tabular import OPTIONS, prepare_csv

    given = {name: vars(options)[option[2:].replace("-", "_")] for name, option in OPTIONS.items()}
    columns = {name: column for name, column in given.items() if column is not None}
    if options.items is None and (of_items := [OPTIONS[name] for name in list(OPTIONS)[3:] if name in columns]):
        raise InputError(f"{of_items[0]} names a column of the items, and there is no --items; give the file, too.")
    files = (options.interactions, options.items, options.images, options.output)
    for line in prepare_csv(*files, columns, progress=True):
        print(f"left out: {line}")
    print(f"Wrote {options.output}: {describe_data(load_dataset(options.output))}")


def run_prepare_amazon(options: argparse.Namespace) -> None:
    """Prepare Amazon review data."""
    from imecd_lite.amazon import BASE_URL, prepare_amazon

    files = (options.output, options.dataset, options.reviews, options.meta)
    print(prepare_amazon(*files, options.base_url or BASE_URL, progress=True), end="")
    print(f"Wrote {options.output}.")


def run_pretrain(options: argparse.Namespace) -> None:
    """Train the tiny encoders."""
    from imecd_lite.dataset import load_dataset
    from imecd_lite.pretrain import pretrain_encoders

    pretrain_encoders(load_dataset(options.data), options.output, options.seed)
    print(f"Wrote {options.output}.")


def run_encode(options: argparse.Namespace) -> None:
    """Encode titles and pictures."""
    dataset, features = open_data(options, pick_device(options.device))
    if features is None:
        print(f"{options.data} has no items.csv: it is an ids-only dataset, there is nothing to encode.")
    else:
        print(f"{dataset.num_items} items: text {tuple(features.text.shape)}, image {tuple(features.image.shape)}.")


def run_train(options: argparse.Namespace) -> None:
    """Train a model, then measure its best epoch on the validation and the test items."""
    from imecd_lite.processes import is_main, join, num_processes, wait
    from imecd_lite.runs import measure_run, train_run

    model_config, train_config = pick_configs(options)
    output, device = options.output, join() or pick_device(options.device)
    if not is_main():
        wait()  # until the first has encoded
    dataset, features = open_data(options, device, model_config.max_length)
    if is_main():
        wait()
    print(describe_data(dataset))

    def announce(model) -> None:
        print(f"{options.model} with {sum(p.numel() for p in model.parameters()):,} parameters on {device}.")
        if num_processes() > 1:
            work = "sharing" if options.model == "imecd" else "each computing the whole of"
            print(f"{num_processes()} processes are {work} each batch of {train_config.batch_size}.")

    run = (options.model, model_config, train_config, dataset, features, output, device, options.resume)
    history = train_run(*run, on_model=announce, on_epoch=print_epoch)
    results = measure_run(output, history, dataset, features, device)
    for split in ("valid", "test"):
        print_measured(results[split], dataset, split)
    print(json.dumps(results["test"]["metrics"]))


def run_tune(options: argparse.Namespace) -> None:
    """Search for settings on the validation items; the last line is one JSON object, the best trial."""
    from imecd_lite.runs import tune

    model_config, train_config = pick_configs(options)
    device = pick_device(options.device)
    dataset, features = open_data(options, device, model_config.max_length)
    print(describe_data(dataset))

    def print_trial(row: dict[str, float]) -> None:
        settings = ", ".join(f"{name} {value:g}" for name, value in list(row.items())[5:])
        print(f"trial {row['trial']}: validation N@10 {row['valid_ndcg@10']:.4f} with {settings}", flush=True)

    search = (options.model, model_config, train_config, dataset, features, options.trials, options.output, device)
    print(json.dumps(tune(*search, on_trial=print_trial)[0]))


def run_reproduce(options: argparse.Namespace) -> None:
    """Run a grid of the paper; the last line names the file that shows the result."""
    from imecd_lite.reproduce import SYSTEMS, Reproduction, available, reproduce

    if options.models and options.target != "table2":
        raise InputError(f"--models chooses rows of table2; {options.target} has IMECD alone, leave it out.")
    device, started = pick_device(options.device), time.monotonic()
    names = {field.name for config in (IMECDConfig, TrainConfig) for field in dataclasses.fields(config)}
    given = {name: value for name, value in vars(options).items() if name in names}
    dataset, features = open_data(options, device, given.get("max_length", IMECDConfig().max_length))
    print(describe_data(dataset))
    grid = Reproduction(dataset, features, options.output, options.trials, given, device)

    def print_cell(number: int, total: int, cell, row: dict) -> None:
        label = ", ".join(str(value) for value in [*cell.labels.values(), f"seed {cell.seed}"])
        minutes = (time.monotonic() - started) / 60
        print(f"[{number}/{total}] {label}: test N@10 {row['ndcg@10']:.4f} ({minutes:.0f} min so far)", flush=True)

    models = options.models or available(features)
    if features is None and not options.models:
        print(f"{options.data} is an ids-only dataset; left out: {', '.join(sorted(set(SYSTEMS) - set(models)))}.")
    print(reproduce(options.target, grid, options.seeds, models, print_cell))


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure a trained model; the last line is one JSON object."""
    from imecd_lite.evaluate import measure, refuse_no_ranks, save_ranks, target_ranks

    if options.ranks:
        refuse_no_ranks(options.ranks)
    model, dataset = open_checkpoint(options)
    split = dataset.split(options.split)
    ranks = target_ranks(model, dataset, split, mask_seen=options.mask_seen, seed=options.seed, progress=True)
    if options.ranks:
        save_ranks(options.ranks, dataset, split, ranks)
    measured = measure(ranks)
    print_measured(measured, dataset, options.split)
    print(json.dumps(measured["metrics"]))


def run_recommend(options: argparse.Namespace) -> None:
    """Recommend items to one user."""
    from imecd_lite.recommend import recommend

    model, dataset = open_checkpoint(options)
    top_k = min(10, dataset.num_items) if options.top_k is None else options.top_k
    table = recommend(model, dataset, options.user, top_k, options.seed, options.mask_seen).drop(columns="item")
    if options.json:
        print(json.dumps({"user_id": options.user, "items": table.to_dict("records")}, default=float))
    else:
        print(table.to_string(index=False, float_format="{:.3f}".format))


def run_diagnose(options: argparse.Namespace) -> None:
    """Measure what each module does; the last line is one JSON object."""
    from imecd_lite.diagnostics import diagnose

    model, dataset = open_checkpoint(options)
    report = diagnose(model, dataset, dataset.split(options.split))
    for name, value in report.items():
        values = value if isinstance(value, dict) else {"": value}
        print(f"{name:<26}" + "  ".join(f"{key} {number:.3f}".strip() for key, number in values.items()))
    print(json.dumps(report))


def run_benchmark(options: argparse.Namespace) -> None:
    """Measure speed and memory."""
    from imecd_lite.benchmark import benchmark, made_up

    if options.runs < 1:
        raise InputError(f"runs is {options.runs}; it must be a whole number of at least 1.")
    model_config, train_config = pick_configs(options)
    device = pick_device(options.device)
    if options.made_up:
        data = made_up(*options.made_up, max_length=model_config.max_length)
    else:
        data = open_data(options, device, model_config.max_length)
    run = (options.model, model_config, train_config, *data, device, options.runs)
    report = benchmark(*run, naive=not options.made_up)
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:<26}{value:>20,.3f}")


def run_compare(options: argparse.Namespace) -> None:
    """Compare two systems; the last line is one JSON object."""
    from imecd_lite.evaluate import compare_runs, user_values

    try:
        user_values([1], options.metric)
    except ValueError as error:
        raise InputError(f"{error}.") from None
    result = compare_runs(options.runs, options.against, options.split, options.metric)
    for name, prefix in (("runs", ""), ("against", "other_")):
        mean, least, greatest = (result[prefix + key] for key in ("mean", "least", "greatest"))
        print(f"{name:<8}{options.metric} {mean:.4f} ({least:.4f} to {greatest:.4f})")
    low, high = result["relative_interval"]
    print(f"difference {result['difference']:+.4f}, {result['relative']:+.1%} (95% interval {low:+.1%} to {high:+.1%})")
    print(json.dumps(result))


def open_checkpoint(options: argparse.Namespace) -> tuple:
    """The trained model and its dataset."""
    from imecd_lite.checkpoint import load_checkpoint, read_description

    settings = read_description(options.checkpoint)["model_config"]
    config = from_dict(IMECDConfig, settings, str(options.checkpoint / "config.json"))
    device = pick_device(options.device)
    dataset, features = open_data(options, device, config.max_length)
    return load_checkpoint(options.checkpoint, dataset, features).to(device), dataset


def print_measured(measured: dict, dataset, split: str) -> None:
    """The metrics of a split and their intervals as a table."""
    print(f"{split}, {measured['metrics']['num_users']} users, full catalogue of {dataset.num_items} items:")
    for name, (low, high) in measured["intervals"].items():
        print(f"  {name:<8}{measured['metrics'][name]:.4f}  (95% interval {low:.4f} to {high:.4f})")


def describe_data(dataset) -> str:
    """One line: the statistics of Table I, and what the filters dropped."""
    numbers = dataset.statistics()
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in dataset.dropped.items() if count) or "nothing"
    return (
        f"{numbers['users']:,} users, {numbers['items']:,} items, {numbers['interactions']:,} interactions, "
        f"{numbers['avg_length']:.2f} a user{', ids only' if dataset.items is None else ''}; dropped: {dropped}."
    )


def print_epoch(row: dict[str, float]) -> None:
    """One line an epoch."""
    loss = f"loss {row['loss']:.4f}, " if "loss" in row else ""
    print(
        f"epoch {row['epoch']}: {loss}validation N@10 {row['valid_ndcg@10']:.4f} ({row['seconds']:.0f} s)", flush=True
    )


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a title may have letters that a terminal has not
    sys.exit(main())
