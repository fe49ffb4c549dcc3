"""Make .venv in the project's root with everything the workshop needs; `make setup` runs this.

Only the standard library, and only what an old Python can parse: it has to be able to say that it is too old.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 11)
GIGABYTES_NEEDED = 4
NETWORK_SIGNS = (
    "NewConnectionError",
    "ConnectTimeout",
    "Failed to establish",
    "name resolution",
    "ProxyError",
    "(from versions: none)",
)


class SetupError(Exception):
    """Set-up can't go on; the message is one sentence that says what to do."""


def check_python(version):
    """Raise SetupError when `version`, such as (3, 9), is too old."""
    if tuple(version[:2]) < OLDEST_PYTHON:
        raise SetupError(
            f"Python {version[0]}.{version[1]} is too old: install Python 3.11 or newer and name it, "
            "for example `make setup PYTHON=python3.11`."
        )


def check_disk(free_bytes):
    """Raise SetupError when there is too little room for the packages."""
    if free_bytes < GIGABYTES_NEEDED * 1e9:
        raise SetupError(
            f"The disk has {free_bytes / 1e9:.1f} GB left and the packages need {GIGABYTES_NEEDED} GB: "
            "free some room and run `make setup` again."
        )


def explain(log):
    """The sentence for a failed pip run, from what it printed."""
    if "No space left on device" in log:
        return f"The disk is full: free {GIGABYTES_NEEDED} GB and run `make setup` again."
    if any(sign in log for sign in NETWORK_SIGNS):
        return "The package index can't be reached: check the network and pip's settings, and run `make setup` again."
    if "Could not find a version" in log:
        line = next(line for line in log.splitlines() if "Could not find a version" in line)
        wanted = line.split("requirement ")[-1].split(" (from")[0]
        return f"There is no {wanted} for this Python and this system: take another of them; see .venv/setup.log."
    errors = [line for line in log.splitlines() if "ERROR" in line] or log.splitlines()[-1:] or ["no output"]
    return f"pip failed: {errors[0].strip()}; the whole log is in .venv/setup.log."


def wanted_stamp():
    """What a finished .venv was made from: constraints, project metadata, interpreter; and where, for it remembers."""
    digest = hashlib.sha256((sys.version + str(ROOT)).encode())
    for name in ("constraints.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def run(command, log):
    """Run a command with its output in `log`; returns whether it succeeded."""
    with open(str(log), "wb") as file:
        return subprocess.call(command, stdout=file, stderr=subprocess.STDOUT, cwd=str(ROOT)) == 0


def setup(venv):
    """Make or mend `venv`; does nothing when it is finished and current."""
    check_python(sys.version_info)
    stamp, python = venv / "imecd-setup", venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if stamp.exists() and stamp.read_text() == wanted_stamp() and python.exists():
        print(f"{venv.name} is ready.")
        return
    check_disk(shutil.disk_usage(str(ROOT)).free)
    print(f"Setting up {venv.name}: about 2 GB of packages, a few minutes.", flush=True)
    if stamp.exists():
        stamp.unlink()
    clear = [] if python.exists() else ["--clear"]  # its Python may be gone, and links to it left
    if subprocess.call([sys.executable, "-m", "venv", *clear, str(venv)]) != 0:
        raise SetupError(
            "Python can't make a virtual environment here: install its venv module (Debian: python3-venv)."
        )
    log = venv / "setup.log"
    install = [str(python), "-m", "pip", "install", "--retries", "2", "--disable-pip-version-check"]
    if not run([*install, "-c", "constraints.txt", "-e", ".[test]"], log):
        raise SetupError(explain(log.read_text(errors="replace")))
    stamp.write_text(wanted_stamp())
    print(f"{venv.name} is ready.")


def main():
    """Returns the exit status."""
    try:
        setup(ROOT / ".venv")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; run `make setup` again to go on.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"setup: {error}: mend that and run `make setup` again.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
