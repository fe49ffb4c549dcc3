"""Find a Chromium to test with, or get one."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class NoBrowser(RuntimeError):
    """There is no browser and none can be had."""


def find_chromium() -> str | None:
    """The system's Chromium or Chrome, else the one that Playwright has, if any."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


def get_chromium() -> str:
    """``find_chromium``, after letting Playwright and then apt (as root) try to install one.

    Raises:
        NoBrowser: neither could.
    """
    attempts = [[[sys.executable, "-m", "playwright", "install", "chromium"]]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        apt = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"]
        attempts.append([["apt-get", "update", "-q"], apt])
    for commands in attempts:
        if path := find_chromium():
            return path
        for command in commands:
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600, check=False)
    if path := find_chromium():
        return path
    raise NoBrowser("There is no Chromium or Chrome: install one, or leave the browser test out with SKIP_BROWSER=1.")
