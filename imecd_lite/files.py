"""Files that are whole or not there: atomic writes, JSON, safetensors."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from imecd_lite.errors import InputError

HASH = "sha256"
"""The name in a file's metadata under which its hash is noted."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write(temporary path)`` and move the result to ``path``: the file is the old one or the new one, whole.

    An ``OSError`` names ``path``, and leaves no temporary file to fill a full disk.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def hold(path: Path, wait: bool = False) -> Iterator[None]:
    """Have a folder or file to oneself, on this machine, until the block ends or the process does.

    Args:
        path: need not exist yet.
        wait: until another command lets it go.

    Raises:
        InputError: another command holds it, and ``wait`` is False.
    """
    owner = f"{getattr(os, 'getuid', int)()} {path.resolve()}"
    name = hashlib.sha256(os.fsencode(owner)).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"imecd-lite-{name}.lock")
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise InputError(f"Another command is at work in {path}; let it end, or name another --output.") from None
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """Read a JSON object; ``InputError`` names the file (and line) when it is missing or is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} is not there; is {path.parent} a folder that training wrote?") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, is not JSON ({error.msg}); copy it anew, or make its folder again."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; copy it anew, or make its folder again.") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{path} holds a {type(value).__name__}, not a JSON object; copy it anew, or make its folder again."
        )
    return value


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write dictionaries with the same keys, at least one, as CSV, atomically."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, atomically; ``read_tensors`` will find out if it was changed since."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {**(metadata or {}), HASH: content_hash(tensors, metadata or {})}
    write_atomically(path, lambda temporary: temporary.write_bytes(in_order(save(tensors, metadata))))


def in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata in order of name; the library's own order differs between processes."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def read_tensors(
    path: Path, remedy: str = "copy it anew or run the command that made it again"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors and its metadata.

    Args:
        remedy: what an error tells to do with a file that is damaged.

    Raises:
        InputError: the file is missing, truncated or foreign, or not what ``write_tensors`` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path} is not there; is {path.parent} a folder that training wrote?") from None
    except (SafetensorError, OSError) as error:  # OSError: a folder, say
        raise InputError(f"{path} is not a whole safetensors file ({error}); {remedy}.") from None
    noted = metadata.pop(HASH, None)  # files of the first version and of others have none
    if noted and noted != content_hash(tensors, metadata):
        raise InputError(f"{path} was changed since it was written, its hash is another; {remedy}.")
    return tensors, metadata


def content_hash(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """sha256 over metadata and tensors, whatever their order."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tree_hash(folder: Path, skip: tuple[str, ...] = ()) -> str:
    """sha256 over the names and contents of all files below ``folder``, in order of name; ``skip`` names files.

    What is hidden, as ``.DS_Store``, or left half-written does not count.
    """
    digest = hashlib.sha256()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        *_, last = parts = name.split("/")
        if last not in skip and not last.endswith(".partial") and not any(part.startswith(".") for part in parts):
            content = (folder / name).read_bytes()
            digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()
