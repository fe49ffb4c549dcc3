"""The command line: every setting an option, every fault a sentence and an exit status, last lines for machines."""

# I items, U users

import contextlib
import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_data import write_ids, write_shop

import imecd_lite.encoders
import imecd_lite.train
from imecd_lite import tabular
from imecd_lite.__main__ import build_parser, main, pick_configs
from imecd_lite.baselines import SASRec
from imecd_lite.checkpoint import load_checkpoint, save_checkpoint
from imecd_lite.config import PRESETS, IMECDConfig, TrainConfig
from imecd_lite.dataset import load_dataset
from imecd_lite.files import hold, read_json, write_json
from imecd_lite.model import IMECD
from imecd_lite.runs import measure_run, train_run, tune

OPTIONS = """
--hidden-size 16 --num-attention-heads 2 --num-id-layers 1 --num-train-timesteps 4 --codebook-size 4 --selector-size 8
--num-experts 2 --max-length 8 --epochs 2 --batch-size 64 --max-prefixes-per-user 2
"""
SMALL = OPTIONS.split()
METRICS = {"hit@5", "hit@10", "hit@20", "ndcg@5", "ndcg@10", "ndcg@20", "num_users"}


def command(*arguments: object) -> tuple[int, list[str], str]:
    """Run one command in this process; returns its exit status, the lines it printed, and its complaint."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse's own
            status = exit_.code
    return status, out.getvalue().splitlines(), err.getvalue()


def refused(*arguments: object) -> str:
    """The complaint of a command that must fail without a traceback; progress bars and usage left out."""
    status, _, complaint = command(*arguments)
    assert status == 2 and "Traceback" not in complaint
    return complaint.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_ids(tmp_path_factory.mktemp("ids"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[Path, list[str]]:
    """A trained run on the ids-only folder and what training printed."""
    output = tmp_path_factory.mktemp("run") / "checkpoint"
    status, lines, complaint = command("train", "--data", data, "--output", output, *SMALL)
    assert status == 0, complaint
    return output, lines


# Options


def test_the_commands_are_those_of_the_readme():
    assert set(build_parser()[1]) == {
        *("doctor", "shop", "pretrain", "encode", "train", "tune", "evaluate", "recommend", "diagnose", "compare"),
        *("reproduce", "benchmark", "prepare csv", "prepare amazon"),
    }


def other_value(field: dataclasses.Field) -> tuple[list[str], object]:
    """Arguments that give a field a possible value which is not its default, and that value."""
    option = "--" + field.name.replace("_", "-")
    if isinstance(field.default, bool):
        return [option.replace("--", "--no-", 1)], False
    special = {"beta_schedule": "linear", "checkpoint_dtype": "float16", "denoiser": "add", "num_attention_heads": 8}
    special |= {"dropout": 0.25, "code_decay": 0.5, "own_noise": 0.5}
    value = special.get(field.name, field.default * 2 or 7)
    return [option, str(value)], value


@pytest.mark.parametrize(
    ("config", "field"),
    [(config, field) for config in (IMECDConfig, TrainConfig) for field in dataclasses.fields(config)],
    ids=lambda x: getattr(x, "name", ""),
)
def test_each_setting_is_an_option_of_train_in_kebab_case(config, field):
    arguments, value = other_value(field)
    parser, commands = build_parser()
    options = parser.parse_args(["train", "--data", "d", "--output", "o", *arguments])
    configs = {type(picked): picked for picked in pick_configs(options)}
    assert configs.pop(config) == dataclasses.replace(config(), **{field.name: value}) != config()
    assert all(other == kind() for kind, other in configs.items())
    assert arguments[0] in commands["train"].format_help()


def test_settings_not_given_are_the_defaults():
    options = build_parser()[0].parse_args(["train", "--data", "d", "--output", "o"])
    assert pick_configs(options) == (IMECDConfig(), TrainConfig())


def test_none_stands_for_all_prefixes():
    options = build_parser()[0].parse_args(["train", "--data", "d", "--output", "o", "--max-prefixes-per-user", "none"])
    assert pick_configs(options)[1].max_prefixes_per_user is None


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_way_to_an_option(preset):
    parser, arguments = build_parser()[0], ["train", "--data", "d", "--output", "o", "--preset", preset]
    config = pick_configs(parser.parse_args(arguments))[1]
    assert config.batch_size == PRESETS[preset].get("batch_size", TrainConfig().batch_size)
    assert pick_configs(parser.parse_args([*arguments, "--batch-size", "99"]))[1].batch_size == 99


def test_a_comparator_has_its_published_settings_unless_others_are_given():
    parser, arguments = build_parser()[0], ["train", "--data", "d", "--output", "o", "--model", "sasrec"]
    assert pick_configs(parser.parse_args(arguments))[0] == IMECDConfig(num_attention_heads=2, dropout=0.5)
    assert pick_configs(parser.parse_args([*arguments, "--dropout", "0.1"]))[0].dropout == 0.1


# Refusals


@pytest.mark.parametrize("name", ["encode", "train", "evaluate", "recommend", "prepare csv"])
def test_an_unknown_option_is_refused_with_the_known_ones(name):
    _, commands = build_parser()
    required = [
        word for action in commands[name]._actions if action.required for word in (action.option_strings[0], "x")
    ]
    complaint = refused(*name.split(), *required, "--hiden-size", "16")
    assert f"--hiden-size is not an option of {name}; the options are " in complaint
    for action in commands[name]._actions:
        assert action.option_strings[0] in complaint


def test_an_abbreviated_option_is_refused_and_not_guessed():
    assert "--hidden is not an option of train" in refused("train", "--data", "d", "--output", "o", "--hidden", "16")


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        (["--dropout", "2"], "dropout is 2.0; it must be a number from 0 up to, but not including, 1"),
        (["--hidden-size", "0"], "hidden_size is 0; it must be a whole number of at least 1"),
        (["--hidden-size", "big"], "argument --hidden-size: invalid int value: 'big'"),
        (["--hidden-size", "12.5"], "argument --hidden-size: invalid int value: '12.5'"),
        (["--num-attention-heads", "3"], "num_attention_heads is 3; it must be a divisor of hidden_size, 128"),
        (["--beta-schedule", "cosine"], "beta_schedule is 'cosine'; it must be one of truncated_linear, linear"),
        (["--temperature", "nan"], "temperature is nan; it must be a finite number"),
        (["--num-experts", "99999999999999999999"], "num_experts is 99999999999999999999; it must be below 2147483648"),
        (["--learning-rate", "-1"], "learning_rate is -1.0; it must be a number above 0"),
        (["--max-prefixes-per-user", "0"], "max_prefixes_per_user is 0; it must be a whole number of at least 1, or"),
        (["--checkpoint-dtype", "half"], "checkpoint_dtype is 'half'; it must be float32 or float16"),
        (["--preset", "paper"], "invalid choice: 'paper' (choose from default, literal)"),
        (["--device", "tpu"], "invalid choice: 'tpu' (choose from auto, cpu, cuda)"),
        (["--beta-schedule", "linear", "--num-train-timesteps", "8"], "8 steps give linear betas from"),
        (["--model", "sasrek"], "There is no model 'sasrek'; the models are imecd, popularity"),
        (["--seed", "-1"], "seed is -1; it must be a whole number from 0 to"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_an_impossible_value_is_refused_with_what_is_accepted(tmp_path, data, arguments, accepted):
    complaint = refused("train", "--data", data, "--output", tmp_path / "run", *arguments)
    assert accepted in complaint.replace("'default', 'literal'", "default, literal").replace(
        "'auto', 'cpu', 'cuda'", "auto, cpu, cuda"
    )
    assert not (tmp_path / "run").exists()


def test_too_little_memory_is_said_in_a_sentence(tmp_path, data):
    beyond_any_machine = ["--max-length", 2**31 - 1, "--hidden-size", 2**16]
    complaint = refused("train", "--data", data, "--output", tmp_path / "run", *beyond_any_machine)
    assert "more memory than there is; give a smaller batch_size" in complaint


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")], ids=repr)
def test_so_it_is_for_numpy_and_on_a_gpu_and_no_other_fault_is_hidden(tmp_path, data, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(imecd_lite.train, "train_epoch", fail)
    assert "more memory than there is" in refused("train", "--data", data, "--output", tmp_path / "run")
    monkeypatch.setattr(imecd_lite.encoders, "read_cache", fail)
    complaint = refused("encode", "--data", write_shop(tmp_path / "shop"))
    assert "close other programs, use --device cpu, or give smaller numbers" in complaint
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        main(["train", "--data", str(data), "--output", str(tmp_path / "run")])


def test_commands_that_are_missing_or_unknown_are_refused_with_the_known_ones():
    assert "required: command" in refused()
    assert all(name in refused("trian") for name in ("doctor", "train", "evaluate", "recommend"))
    assert "--output" in refused("train", "--data", "d")


def test_split_is_valid_or_test():
    assert "train" in refused("evaluate", "--data", "d", "--checkpoint", "c", "--split", "train")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_is_refused_where_there_is_none(tmp_path, data):
    assert "no CUDA device" in refused("train", "--data", data, "--output", tmp_path / "run", "--device", "cuda")


def test_folders_that_are_not_there_are_refused_by_name(tmp_path, data, trained):
    nowhere = tmp_path / "nowhere"
    assert "nowhere" in refused("train", "--data", nowhere, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "nowhere" in refused("evaluate", "--data", nowhere, "--checkpoint", trained[0])
    assert "nowhere" in refused("evaluate", "--data", data, "--checkpoint", nowhere)
    assert "nowhere" in refused("recommend", "--data", data, "--checkpoint", nowhere, "--user", "U000")


def test_a_folder_with_somebody_elses_config_is_refused(tmp_path, data):
    write_json(tmp_path / "config.json", {"model_type": "roberta"})
    assert "does not describe a trained model" in refused("evaluate", "--data", data, "--checkpoint", tmp_path)


def test_other_data_than_a_model_was_trained_on_is_refused(tmp_path, trained):
    other = write_ids(tmp_path / "other", seed=1)
    assert "other data" in refused("evaluate", "--data", other, "--checkpoint", trained[0])
    assert "other data" in refused("recommend", "--data", other, "--checkpoint", trained[0], "--user", "U000")


# Prepare


def test_a_shops_own_table_becomes_a_dataset_that_trains(tmp_path, data, trained):
    rows = (data / "interactions.csv").read_text().replace("user_id,item_id", "customer,sku", 1)
    (tmp_path / "orders.csv").write_text(rows + ",I000,5\n")
    own = ("prepare", "csv", "--interactions", tmp_path / "orders.csv", "--output", tmp_path / "own")
    assert "name it with --user-column" in refused(*own)
    assert "--title-column names a column of the items, and there is no --items" in refused(*own, "--title-column", "a")
    status, lines, complaint = command(*own, "--user-column", "customer", "--item-column", "sku")
    assert status == 0 and lines[0] == f"left out: 1 of {tmp_path / 'orders.csv'}: user_id is empty", complaint
    assert lines[1].startswith(f"Wrote {tmp_path / 'own'}: 30 users, 12 items, ")
    assert command("train", "--data", tmp_path / "own", "--output", tmp_path / "run", *SMALL)[1][-1] == trained[1][-1]
    assert "is already there; name another --output" in refused(
        *own, "--user-column", "customer", "--item-column", "sku"
    )


def test_each_column_of_a_shops_own_tables_has_an_option():
    assert set(tabular.OPTIONS.values()) <= {
        action.option_strings[0] for action in build_parser()[1]["prepare csv"]._actions
    }


def test_the_kind_of_prepare_is_asked_for():
    assert "required: kind" in refused("prepare")
    assert "invalid choice: 'xls'" in refused("prepare", "xls")


# Train


def test_train_writes_what_it_promises(trained):
    output, _ = trained
    assert {path.name for path in output.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "history.csv",
        "metrics.json",
    }
    assert not list(output.glob("*.partial"))
    config = read_json(output / "config.json")
    assert config["model_config"]["hidden_size"] == 16 and config["train_config"]["epochs"] == 2
    assert config["model_config"]["use_text"] is False  # an ids-only folder
    summary = read_json(output / "metrics.json")
    for split in ("valid", "test"):
        assert set(summary[split]["metrics"]) == METRICS
        for name, (low, high) in summary[split]["intervals"].items():
            assert 0 <= low <= summary[split]["metrics"][name] <= high <= 1
    with (output / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and summary["best_epoch"] in (1, 2)
    assert float(rows[summary["best_epoch"] - 1]["valid_ndcg@10"]) == summary["valid"]["metrics"]["ndcg@10"]


def test_trains_last_line_is_its_test_metrics(trained):
    output, lines = trained
    assert json.loads(lines[-1]) == read_json(output / "metrics.json")["test"]["metrics"]
    assert set(json.loads(lines[-1])) == METRICS


def test_the_same_command_gives_the_same_numbers(tmp_path, data, trained):
    assert command("train", "--data", data, "--output", tmp_path / "run", *SMALL)[1][-1] == trained[1][-1]
    weights = [folder.joinpath("model.safetensors").read_bytes() for folder in (tmp_path / "run", trained[0])]
    assert weights[0] == weights[1]
    other = command("train", "--data", data, "--output", tmp_path / "other", *SMALL, "--seed", "1")
    assert other[0] == 0 and (tmp_path / "other/model.safetensors").read_bytes() != weights[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(data, trained):
    before = contents(trained[0])
    complaint = refused("train", "--data", data, "--output", trained[0], *SMALL)
    assert "already holds a run" in complaint and "--resume" in complaint
    assert contents(trained[0]) == before


def test_a_folder_that_another_command_is_at_work_in_is_left_to_it(data, trained):
    before = contents(trained[0])
    with hold(trained[0]):
        complaint = refused("train", "--data", data, "--output", trained[0], *SMALL, "--resume")
    assert f"Another command is at work in {trained[0]}; let it end, or name another --output." in complaint
    assert contents(trained[0]) == before


def test_a_finished_run_without_its_state_is_not_begun_anew(tmp_path, data, trained):
    run = shutil.copytree(trained[0], tmp_path / "run")
    (run / "training_state.safetensors").unlink()
    before = contents(run)
    complaint = refused("train", "--data", data, "--output", run, *SMALL, "--resume")
    assert "finished run without training_state.safetensors" in complaint and contents(run) == before


def test_a_run_that_diverged_says_so_and_its_folder_can_be_used_again(tmp_path, data):
    run = ("train", "--data", data, "--output", tmp_path / "run", *SMALL, "--epochs", "1")
    assert "lower learning_rate" in refused(*run, "--learning-rate", "1e30")
    assert command(*run, "--learning-rate", "0.001")[0] == 0


def test_a_file_for_a_folder_and_a_folder_for_a_file_are_refused_before_any_work(tmp_path, data, trained):
    (tmp_path / "file").touch()
    complaint = refused("train", "--data", data, "--output", tmp_path / "file", *SMALL)
    assert "file is a file; name a folder for the run" in complaint
    evaluate = ("evaluate", "--data", data, "--checkpoint", trained[0], "--ranks")
    assert "is a folder; name a file to write" in refused(*evaluate, tmp_path)
    assert "the path is empty" in refused(*evaluate, "")
    assert r"'hol\udce9.csv' is not UTF-8; rename it" in refused(*evaluate, "hol\udce9.csv")


@pytest.mark.parametrize("seed", ["-1", str(2**31), "1.5", "x"])
def test_seeds_that_generators_do_not_take_are_refused(data, trained, seed):
    complaint = refused("evaluate", "--data", data, "--checkpoint", trained[0], f"--seed={seed}")
    assert f"'{seed}' is not a whole number from 0 to 2147483647" in complaint


def test_rows_are_chosen_for_table2_alone(tmp_path, data):
    complaint = refused("reproduce", "table3", "--data", data, "--output", tmp_path / "out", "--models", "sasrec")
    assert "--models chooses rows of table2" in complaint and not (tmp_path / "out").exists()


def test_letters_that_the_terminal_has_not_are_replaced(tmp_path):
    folder = write_shop(tmp_path / "shop")
    table = (folder / "items.csv").read_text(encoding="utf-8").replace("Thing", "Вещь")
    (folder / "items.csv").write_text(table, encoding="utf-8")
    run = ("--data", folder, "--features", tmp_path / "features.safetensors")
    assert command("train", *run, "--output", tmp_path / "run", "--model", "popularity")[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "imecd_lite", "recommend", *run, "--checkpoint", tmp_path / "run", "--user", "U003"],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    assert b"????" in done.stdout


def test_a_run_is_not_resumed_to_fewer_epochs_than_it_has_had(data, trained):
    before = contents(trained[0])
    complaint = refused("train", "--data", data, "--output", trained[0], *SMALL, "--epochs", "1", "--resume")
    assert "has had 2 epochs, more than 1; name another --output" in complaint
    assert contents(trained[0]) == before


def test_a_resumed_run_mends_its_weights_and_its_history(data, trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:1000])
    (run / "history.csv").unlink()
    assert command("train", "--data", data, "--output", run, *SMALL, "--resume")[1][-1] == trained[1][-1]
    assert contents(run) == contents(trained[0])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--lambda-c", "0.5"], "lambda_c 0.1, not 0.5"),
        (["--hidden-size", "8"], "hidden_size 16, not 8"),
        (["--seed", "3"], "seed 0, not 3"),
        (["--batch-size", "32"], "batch_size 64, not 32"),
        (["--model", "popularity"], "model 'imecd', not 'popularity'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_resuming_with_other_settings_is_refused_and_leaves_the_run_alone(data, trained, arguments, name):
    before = contents(trained[0])
    complaint = refused("train", "--data", data, "--output", trained[0], *SMALL, *arguments, "--resume")
    if name.startswith("model"):
        assert "was begun with" in complaint
    else:
        assert name in complaint
    assert contents(trained[0]) == before


def test_an_interrupted_run_says_so_and_resumes_to_the_same_end(tmp_path, data, trained, monkeypatch):
    arguments = ("train", "--data", data, "--output", tmp_path / "run", *SMALL)
    steps, after_step = iter(range(100)), IMECD.after_step

    def interrupted(self, output):
        if next(steps) == 1:
            raise KeyboardInterrupt
        after_step(self, output)

    with monkeypatch.context() as patch:
        patch.setattr(IMECD, "after_step", interrupted)
        status, _, complaint = command(*arguments)
    assert status == 130 and "interrupted" in complaint and "Traceback" not in complaint
    status, lines, complaint = command(*arguments, "--resume")
    assert status == 0, complaint
    assert lines[-1] == trained[1][-1]
    assert (tmp_path / "run/model.safetensors").read_bytes() == (trained[0] / "model.safetensors").read_bytes()


def test_a_finished_run_goes_on_with_more_epochs(tmp_path, data, trained):
    arguments = ("train", "--data", data, "--output", tmp_path / "run", *SMALL)
    assert command(*arguments, "--epochs", "1")[0] == 0
    assert command(*arguments, "--resume")[1][-1] == trained[1][-1]
    assert contents(tmp_path / "run")["config.json"] == contents(trained[0])["config.json"]


def test_popularity_is_trained_and_measured_by_the_same_commands(tmp_path, data):
    status, lines, _ = command("train", "--data", data, "--output", tmp_path / "run", "--model", "popularity")
    assert status == 0 and set(json.loads(lines[-1])) == METRICS
    assert command("evaluate", "--data", data, "--checkpoint", tmp_path / "run")[1][-1] == lines[-1]


def test_half_precision_is_measured_as_it_is_stored(tmp_path, data, trained):
    run = tmp_path / "run"
    status, lines, _ = command("train", "--data", data, "--output", run, *SMALL, "--checkpoint-dtype", "float16")
    assert status == 0
    assert (run / "model.safetensors").stat().st_size < 0.7 * (trained[0] / "model.safetensors").stat().st_size
    assert command("evaluate", "--data", data, "--checkpoint", run)[1][-1] == lines[-1]


# Evaluate


def test_evaluates_last_line_is_what_train_measured(data, trained):
    output, _ = trained
    for split in ("valid", "test"):
        status, lines, complaint = command("evaluate", "--data", data, "--checkpoint", output, "--split", split)
        assert status == 0, complaint
        assert json.loads(lines[-1]) == read_json(output / "metrics.json")[split]["metrics"]
        assert len(lines) > len(METRICS) - 1  # and a table with intervals for people


def test_the_test_split_is_the_default(data, trained):
    assert command("evaluate", "--data", data, "--checkpoint", trained[0])[1][-1] == trained[1][-1]


def test_ranks_are_written_on_request_and_give_the_metrics(tmp_path, data, trained):
    file = tmp_path / "ranks.csv"
    _, lines, _ = command("evaluate", "--data", data, "--checkpoint", trained[0], "--ranks", file)
    with file.open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    values = json.loads(lines[-1])
    assert len(rows) == values["num_users"] == len({row["user_id"] for row in rows})
    assert sum(int(row["rank"]) <= 5 for row in rows) / len(rows) == pytest.approx(values["hit@5"])
    before = (data / "interactions.csv").read_bytes()
    arguments = ("evaluate", "--data", data, "--checkpoint", trained[0], "--ranks", data / "interactions.csv")
    assert "interactions.csv is there, and holds no ranks" in refused(*arguments)
    assert (data / "interactions.csv").read_bytes() == before


def test_an_option_for_several_may_be_given_several_times():
    parser = build_parser()[0]
    for arguments in (["a", "b"], ["a", "--runs", "b"]):
        options = parser.parse_args(["compare", "--runs", *arguments, "--against", "c"])
        assert options.runs == [Path("a"), Path("b")]


def test_a_tilde_that_the_shell_has_left_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["train", "--data", "~$orders", "--output=~/run", "--text-encoder=~/text", "--image-encoder=a/b"]
    options = build_parser()[0].parse_args(arguments)
    assert options.output == tmp_path / "run" and options.data == Path("~$orders"), "which is nobody's home"
    assert options.text_encoder == str(tmp_path / "text") and options.image_encoder == "a/b"


def test_a_reader_who_has_enough_of_the_output_is_no_fault(data, trained):
    recommend = [sys.executable, "-m", "imecd_lite", "recommend", "--checkpoint", trained[0], "--data", data]
    with subprocess.Popen(
        [*recommend, "--user", "U000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1


def test_a_run_that_goes_on_has_no_ranks_of_its_earlier_weights(tmp_path, data, trained, monkeypatch):
    run = shutil.copytree(trained[0], tmp_path / "run")
    longer = [*SMALL, "--epochs", "9", "--patience", "9", "--resume"]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(imecd_lite.train, "train_epoch", interrupt)
    assert command("train", "--data", data, "--output", run, *longer)[0] == 130
    assert not list(run.glob("ranks_*.csv")) and not (run / "metrics.json").exists()
    assert "has not ended; end it with train --resume" in refused("compare", "--runs", run, "--against", trained[0])
    monkeypatch.undo()
    assert command("train", "--data", data, "--output", run, *longer)[0] == 0
    assert (run / "ranks_test.csv").exists() and (run / "metrics.json").exists()


def test_a_file_in_the_place_of_a_folder_is_named_as_one(data, trained):
    file = data / "interactions.csv"
    for arguments in (("--data", file, "--checkpoint", trained[0]), ("--data", data, "--checkpoint", file)):
        assert f"{file} is a file; name the folder that it is in." in refused("evaluate", *arguments)


def test_python_may_name_folders_by_strings(tmp_path, data):
    dataset = load_dataset(str(data))
    config, training = IMECDConfig(hidden_size=8, num_id_layers=1), TrainConfig(epochs=1)
    for name in ("run", "other"):
        history = train_run("sasrec", config, training, dataset, None, str(tmp_path / name))
    assert measure_run(str(tmp_path / "run"), history, dataset, None)["best_epoch"] == 1
    model = load_checkpoint(str(tmp_path / "run"), dataset, None)
    save_checkpoint(str(tmp_path / "saved"), "sasrec", model, training, dataset, None)
    imecd_lite.train.train(model, dataset, training, str(tmp_path / "trained"))
    assert tune("sasrec", config, training, dataset, None, 1, str(tmp_path / "tuned"))[0]["trial"] == 1
    for name in ("run", "saved", "trained", "tuned/trial-001"):
        assert (tmp_path / name / "model.safetensors").exists()


def test_seed_and_mask_seen_reach_the_evaluation(data, trained):
    base, seed, masked = (
        command("evaluate", "--data", data, "--checkpoint", trained[0], *more)[1][-1]
        for more in ([], ["--seed", "5"], ["--mask-seen"])
    )
    assert seed != base and json.loads(masked)["ndcg@5"] > json.loads(base)["ndcg@5"]  # nobody buys a thing twice here


# Recommend


def test_diagnoses_last_line_is_its_report(data, trained):
    status, lines, complaint = command("diagnose", "--checkpoint", trained[0], "--data", data)
    assert status == 0, complaint
    report = json.loads(lines[-1])
    assert report["codebook_size"] == {"id": 4}
    assert 1 <= report["codebook_perplexity"]["id"] <= 4
    assert len(lines) > len(report)


def test_only_an_imecd_is_diagnosed(tmp_path, data):
    assert command("train", "--data", data, "--output", tmp_path / "run", "--model", "popularity")[0] == 0
    assert "The model is a Popularity; only an IMECD" in refused(
        "diagnose", "--checkpoint", tmp_path / "run", "--data", data
    )


def test_tunes_last_line_is_the_best_trial_and_it_goes_on_with_more(tmp_path, data):
    tune = ("tune", "--data", data, "--output", tmp_path / "tuned", "--model", "sasrec", *SMALL, "--epochs", "1")
    status, lines, complaint = command(*tune, "--trials", "1")
    assert status == 0, complaint
    first = json.loads(lines[-1])
    assert first["trial"] == 1 and first["dropout"] == SASRec.DEFAULTS["dropout"]
    status, lines, _ = command(*tune, "--trials", "3")
    assert [line.split(":")[0] for line in lines[1:-1]] == ["trial 1", "trial 2", "trial 3"]
    best = json.loads(lines[-1])
    assert status == 0 and best["valid_ndcg@10"] >= first["valid_ndcg@10"]
    assert f"{best['valid_ndcg@10']:.4f}" in lines[best["trial"]]
    assert "trials is 0" in refused(*tune, "--trials", "0")


def test_compares_last_line_is_the_difference_of_two_systems(tmp_path, data, trained):
    run, other = trained[0], tmp_path / "popularity"
    command("train", "--data", data, "--output", other, "--model", "popularity")
    status, lines, complaint = command("compare", "--runs", run, "--against", other, "--metric", "hit@20")
    assert status == 0, complaint
    result, expected = json.loads(lines[-1]), [read_json(f / "metrics.json")["test"]["metrics"] for f in (run, other)]
    assert result["mean"] == pytest.approx(expected[0]["hit@20"])
    assert result["difference"] == pytest.approx(expected[0]["hit@20"] - expected[1]["hit@20"])
    assert "metric must be hit@K" in refused("compare", "--runs", run, "--against", other, "--metric", "recall@5")
    assert "ranks_test.csv is not there" in refused("compare", "--runs", tmp_path, "--against", other)


def test_reproduce_tells_its_progress_and_ends_with_the_file_that_shows_the_result(tmp_path, data):
    small = [*SMALL, "--epochs", "1", "--seeds", "2", "--trials", "1", "--output", tmp_path]
    status, lines, complaint = command(
        "reproduce", "table2", "--data", data, *small, "--models", "popularity", "sasrec"
    )
    assert status == 0, complaint
    assert [line.split(":")[0] for line in lines[1:-1]] == [
        f"[{n}/4] {name}, seed {seed}"
        for n, (name, seed) in enumerate(((m, s) for m in ("popularity", "sasrec") for s in (0, 1)), start=1)
    ]
    assert lines[-1] == str(tmp_path / "table2.md") and (tmp_path / "table2.md").exists()
    config = read_json(tmp_path / "runs/sasrec-seed-1/config.json")
    assert config["model_config"]["hidden_size"] == 16 and config["model_config"]["dropout"] == 0.5
    assert "There is no 'table9'" in refused("reproduce", "table9", "--data", data, *small)
    assert "seed is not an option" in refused("reproduce", "table2", "--data", data, *small, "--seed", "1")


def test_reproduce_leaves_out_what_an_ids_only_dataset_can_t_have_and_says_so(tmp_path, data, monkeypatch):
    asked = []
    monkeypatch.setattr("imecd_lite.reproduce.reproduce", lambda *arguments: asked.append(arguments[3]))
    status, lines, _ = command("reproduce", "table2", "--data", data, "--output", tmp_path)
    assert status == 0 and "is an ids-only dataset; left out: " in lines[1] and "unisrec" in lines[1]
    assert "unisrec" not in asked[0] and "diffurec" in asked[0]


def test_recommendations_are_a_readable_table(data, trained):
    status, lines, _ = command("recommend", "--data", data, "--checkpoint", trained[0], "--user", "U003")
    assert status == 0 and lines[0].split() == ["rank", "item_id", "score"]
    assert [line.split()[0] for line in lines[1:]] == [str(rank) for rank in range(1, 11)]
    assert len({line.split()[1] for line in lines[1:]}) == 10


def test_recommendations_for_machines_are_the_same_in_json(data, trained):
    arguments = ("recommend", "--data", data, "--checkpoint", trained[0], "--user", "U003", "--top-k", "4")
    table, (line,) = command(*arguments)[1], command(*arguments, "--json")[1]
    answer = json.loads(line)
    assert answer["user_id"] == "U003" and [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]
    assert [item["item_id"] for item in answer["items"]] == [row.split()[1] for row in table[1:]]
    assert [f"{item['score']:.3f}" for item in answer["items"]] == [row.split()[2] for row in table[1:]]


def test_unknown_users_and_impossible_lengths_are_refused(data, trained):
    base = ("recommend", "--data", data, "--checkpoint", trained[0])
    assert "no user 'nobody'" in refused(*base, "--user", "nobody")
    assert "top_k is 0; it must be from 1 to 12" in refused(*base, "--user", "U003", "--top-k", "0")


# Pictures


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """A folder with titles and pictures, and encoders that are no encoders."""

    def encode(inputs, encoder, device="cpu", batch_size=64, progress=False, keep=None):
        generator = torch.Generator().manual_seed(len(str(inputs[0])))
        return torch.randn(len(inputs), 6, generator=generator)

    monkeypatch.setattr(imecd_lite.encoders, "encode_texts", encode)
    monkeypatch.setattr(imecd_lite.encoders, "encode_images", encode)
    return write_shop(tmp_path / "shop")


def test_from_a_folder_with_pictures_to_recommendations_with_titles(tmp_path, shop):
    run = tmp_path / "run"
    status, lines, complaint = command("encode", "--data", shop)
    assert status == 0 and "12 items: text (12, 6), image (12, 6)" in lines[-1], complaint
    status, lines, complaint = command("train", "--data", shop, "--output", run, *SMALL)
    assert status == 0, complaint
    config = read_json(run / "config.json")
    assert config["model_config"]["use_text"] and config["features"]
    assert command("evaluate", "--data", shop, "--checkpoint", run)[1][-1] == lines[-1]
    _, lines, _ = command("recommend", "--data", shop, "--checkpoint", run, "--user", "U003", "--top-k", "3")
    assert lines[0].split() == ["rank", "item_id", "title", "score"] and "Thing" in lines[1]
    _, (line,), _ = command("recommend", "--data", shop, "--checkpoint", run, "--user", "U003", "--json")
    assert json.loads(line)["items"][0]["title"].startswith("Thing")


def test_features_of_other_encoders_are_refused(tmp_path, shop):
    run = tmp_path / "run"
    assert command("train", "--data", shop, "--output", run, *SMALL, "--epochs", "1")[0] == 0
    before = contents(run)
    other = ("--text-encoder", "another/encoder", "--features", tmp_path / "other.safetensors")
    assert "other text and image features" in refused("evaluate", "--data", shop, "--checkpoint", run, *other)
    complaint = refused("train", "--data", shop, "--output", run, *SMALL, "--epochs", "1", "--resume", *other)
    assert "was begun on other text and image features" in complaint and contents(run) == before


def test_without_text_and_image_a_folder_with_pictures_trains_on_ids(tmp_path, shop):
    run = tmp_path / "run"
    status, _, complaint = command("train", "--data", shop, "--output", run, *SMALL, "--no-use-text", "--no-use-image")
    assert status == 0, complaint
    assert command("evaluate", "--data", shop, "--checkpoint", run)[0] == 0


def test_an_ids_only_folder_has_nothing_to_encode(data):
    status, lines, _ = command("encode", "--data", data)
    assert status == 0 and "ids-only" in lines[-1]


# As people run it


def test_the_module_runs_as_a_program(data, trained):
    arguments = ["recommend", "--data", str(data), "--checkpoint", str(trained[0]), "--user", "U003", "--json"]
    program = subprocess.run([sys.executable, "-m", "imecd_lite", *arguments], capture_output=True, text=True)
    assert program.returncode == 0, program.stderr
    assert program.stdout.splitlines() == command(*arguments)[1]
    arguments[arguments.index("U003")] = "nobody"
    program = subprocess.run([sys.executable, "-m", "imecd_lite", *arguments], capture_output=True, text=True)
    assert program.returncode == 2 and not program.stdout
    assert program.stderr.startswith("imecd_lite recommend: There is no user 'nobody'")
    assert len(program.stderr.splitlines()) == 1
