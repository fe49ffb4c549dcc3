"""Files are whole or not there; what is not ours is refused in one sentence."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import save_file

from imecd_lite.errors import InputError
from imecd_lite.files import hold, read_json, read_tensors, tree_hash, write_atomically, write_json, write_tensors


def test_read_json_names_the_file_and_the_line(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is not there"):
        read_json(tmp_path / "config.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"a": 1,\n"b": }\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json, line 2"):
        read_json(broken)
    broken.write_text("[1]", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json holds a list"):
        read_json(broken)
    broken.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"broken\.json is not UTF-8"):
        read_json(broken)


HOLD = """
import sys
from pathlib import Path
from imecd_lite.files import hold

with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_command_at_a_time_and_a_killed_one_leaves_it(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"Another command is at work in {folder}; "), hold(folder):
            pass
        other.send_signal(signal.SIGTERM)
    with hold(folder), pytest.raises(InputError, match="Another command"), hold(folder):
        pass
    with pytest.raises(KeyboardInterrupt), hold(folder):
        raise KeyboardInterrupt
    with hold(folder):
        pass


def test_who_waits_gets_a_file_when_the_other_has_let_it_go(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "file"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        timer = threading.Timer(0.5, other.stdin.close)
        timer.start()
        with hold(tmp_path / "file", wait=True):
            assert not timer.is_alive()


def test_json_comes_back_as_it_was_written(tmp_path):
    value = {"a": 1, "b": [0.1, None, "ä"], "c": {"d": True}}
    write_json(tmp_path / "new" / "value.json", value)
    assert read_json(tmp_path / "new" / "value.json") == value


def test_a_mark_that_an_editor_has_put_before_the_json_is_passed_over(tmp_path):
    (tmp_path / "value.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "value.json") == {"a": 1}


def test_json_refuses_what_json_does_not_have(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "value.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_tensors_come_back_bit_by_bit_with_their_metadata(tmp_path):
    tensors = {
        "whole": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "a view": torch.arange(12).reshape(3, 4).T,
        "single": torch.tensor(7.0, dtype=torch.float64),
        "half": torch.ones(2, dtype=torch.float16),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"who": "a test"})
    back, metadata = read_tensors(tmp_path / "t.safetensors")
    assert metadata == {"who": "a test"} and set(back) == set(tensors)
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in tensors)


def test_a_folders_hash_is_of_what_is_to_be_seen_in_it(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.txt", "b/c.txt"):
        (tmp_path / name).write_text(name)
    clean = tree_hash(tmp_path)
    (tmp_path / "b/.ipynb_checkpoints").mkdir()
    for name in (".DS_Store", "model.safetensors.partial", "b/.hidden", "b/.ipynb_checkpoints/c.txt"):
        (tmp_path / name).write_text("left by a program")
    assert tree_hash(tmp_path) == clean
    assert tree_hash(tmp_path, skip=("c.txt",)) != clean
    (tmp_path / "b/c.txt").rename(tmp_path / "b/d.txt")
    assert tree_hash(tmp_path) != clean


def test_a_missing_truncated_or_foreign_tensor_file_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    with pytest.raises(InputError, match=r"t\.safetensors is not there"):
        read_tensors(path)
    write_tensors(path, {"a": torch.ones(100)})
    whole = path.read_bytes()
    for content in (b"", whole[:4], whole[:20], whole[:-1], whole[: len(whole) // 2], b"PK\x03\x04 a zip file, say"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.safetensors is not a whole safetensors file") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)


def test_the_same_tensors_are_the_same_bytes_in_every_process(tmp_path):
    program = (
        "import sys, pathlib, torch; from imecd_lite.files import write_tensors; write_tensors("
        "pathlib.Path(sys.argv[1]), {'b': torch.ones(3), 'a': torch.ones(2).half()}, {k: 'ä' * 9 for k in 'fgabcde'})"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", program, tmp_path / name], check=True)
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two")}) == 1
    tensors, metadata = read_tensors(tmp_path / "one")
    assert set(metadata) == set("abcdefg") and tensors["b"].tolist() == [1, 1, 1]


def test_a_tensor_file_whose_contents_were_changed_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    tensors = {"a": torch.ones(100), "b": torch.tensor(2), "none": torch.zeros(0, 3), "half": torch.ones(2).bfloat16()}
    write_tensors(path, tensors, {"who": "a test"})
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) - 300, whole.index(b"a test")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"t\.safetensors was changed since it was written"):
            read_tensors(path)
    save_file({"a": torch.ones(3)}, path)  # another program's, or of before there were hashes
    assert torch.equal(read_tensors(path)[0]["a"], torch.ones(3))


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, fault):
    path = tmp_path / "value.txt"
    path.write_text("old", encoding="utf-8")

    def write(temporary):
        temporary.write_text("ne", encoding="utf-8")
        raise fault

    with pytest.raises(fault):
        write_atomically(path, write)
    assert path.read_text(encoding="utf-8") == "old"
    write_atomically(path, lambda temporary: temporary.write_text("new", encoding="utf-8"))
    assert [p.name for p in tmp_path.iterdir()] == ["value.txt"] and path.read_text(encoding="utf-8") == "new"


def test_a_fault_of_the_disk_names_the_file_and_leaves_nothing(tmp_path):
    def write(temporary):
        temporary.write_text("ne", encoding="utf-8")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / "value.txt", write)
    assert caught.value.filename == str(tmp_path / "value.txt") and not list(tmp_path.iterdir())
