"""From a raw folder to metrics, as the README does it, at full size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imecd_lite.config import BUNDLED_DATA

pytestmark = pytest.mark.slow
SHOP = BUNDLED_DATA / "shop"


def run(*arguments: object) -> dict:
    """One command as a program of its own; its last line, a JSON object."""
    command = [sys.executable, "-m", "imecd_lite", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_imecd_trained_on_the_shop_is_at_least_twice_as_good_as_popularity(tmp_path):
    imecd = run("train", "--data", SHOP, "--output", tmp_path / "imecd")
    popularity = run("train", "--data", SHOP, "--output", tmp_path / "popularity", "--model", "popularity")
    assert imecd["ndcg@10"] >= 2 * popularity["ndcg@10"] > 0
    report = run("diagnose", "--checkpoint", tmp_path / "imecd", "--data", SHOP)
    for modality, size in report["codebook_size"].items():
        assert report["codebook_perplexity"][modality] >= size / 2
    assert all(value <= 0.85 for value in report["gate_entropy"].values())
    assert report["steps_top10_overlap"] < 0.95


@pytest.mark.skipif(not os.environ.get("IMECD_DATA"), reason="IMECD_DATA is not set")
def test_a_real_catalogue_goes_from_its_raw_folder_to_metrics(tmp_path):
    data = Path(os.environ["IMECD_DATA"]) / "ml-100k"
    options = ("--data", data, "--features", tmp_path / "features.safetensors", "--epochs", 2)
    trained = run("train", *options, "--output", tmp_path / "run")
    assert trained["num_users"] == 943
    assert trained["hit@20"] > 2 * 20 / 1343, "no better than twice chance"
    measured = run("evaluate", *options[:4], "--checkpoint", tmp_path / "run")
    assert measured == trained
