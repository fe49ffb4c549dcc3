"""Downloads that end whole, go on where they stopped and never press a server: big files, and many pictures."""

from __future__ import annotations

import asyncio
import io
import os
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import httpx
from anyio.from_thread import start_blocking_portal
from PIL import Image
from tqdm.auto import tqdm

from imecd_lite import __version__
from imecd_lite.errors import InputError
from imecd_lite.files import write_atomically

USER_AGENT = f"imecd-lite/{__version__} (prepares research data; a few connections, resumes, obeys Retry-After)"
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp"}
"""The picture formats that are taken, by Pillow's name, and their file endings."""
T = TypeVar("T")
AGAIN = "give the same command again later, it goes on where it stopped"


@dataclass(frozen=True)
class Manners:
    """How servers are asked, how long they are waited for, and how much is taken from them."""

    connections: int = 4  # pictures at the same time, over all hosts
    tries: int = 5  # in a row without progress
    pause: float = 1.0  # seconds before the second try, doubled before each further one
    longest_pause: float = 600.0  # seconds; a server that asks for more in Retry-After is not waited for
    patience: float = 30.0  # seconds for an answer, and for each ``progress`` bytes or the end
    progress: int = 300_000
    picture_bytes: int = 20_000_000
    picture_pixels: int = 25_000_000  # refused before they are decoded
    unanswered: int = 20  # pictures in a row: the network is down


POLITE = Manners()


class Refused(Exception):
    """It will never come: the server or the picture itself says so; the message is the reason, in a few words."""


class Unanswered(Exception):
    """It did not come, and may another time; the message is the reason, in a few words."""


class Busy(Exception):
    """A try that the server turned away for now, and for how many seconds at least."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Stale(Busy):
    """A try that could not go on after the bytes that are there."""


class Fetcher(httpx.AsyncClient):
    """An HTTP client with patience. Use it in ``async with``."""

    def __init__(self, manners: Manners) -> None:
        super().__init__(
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            follow_redirects=True,
            max_redirects=5,
            timeout=None,  # `answer` keeps the time
        )
        self.manners = manners
        self.closed_until: dict[str, float] = defaultdict(float)  # by host: no request before this time of the loop

    @asynccontextmanager
    async def answer(
        self, url: str, headers: dict[str, str]
    ) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
        """A good answer and its bytes, which have to come in time."""
        patience = self.manners.patience
        async with asyncio.timeout(patience) as deadline, self.stream("GET", url, headers=headers) as response:
            status = response.status_code
            if status == 416:
                raise Stale("HTTP 416")
            if status in (408, 429) or status >= 500:
                raise Busy(f"HTTP {status}", retry_after(response))
            if status not in (200, 206):
                raise Refused(f"HTTP {status}")

            async def in_time() -> AsyncIterator[bytes]:
                received = due = 0
                async for chunk in response.aiter_raw():
                    yield chunk
                    received += len(chunk)
                    if received >= due:
                        due = received + self.manners.progress
                        deadline.reschedule(asyncio.get_running_loop().time() + patience)

            yield response, in_time()

    async def patiently(
        self, url: str, attempt: Callable[[], Awaitable[T]], progress: Callable[[], int] = lambda: 0
    ) -> T:
        """Try until it succeeds: ``tries`` times, counted anew when ``progress`` has grown enough."""
        manners, loop, tried, furthest = self.manners, asyncio.get_running_loop(), 0, progress()
        while True:
            try:
                host = httpx.URL(url).host
                await asyncio.sleep(self.closed_until[host] - loop.time())
                return await attempt()
            except (httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise Refused(str(error)) from None
            except (UnicodeError, ExceptionGroup):  # of a host's name, of a port above 65,535
                raise Refused("not an address") from None
            except (httpx.TransportError, TimeoutError, Busy) as error:
                tried += 1
                if progress() >= furthest + manners.progress:
                    tried, furthest = 1, progress()
                reason = str(error) or ("too slow" if isinstance(error, TimeoutError) else type(error).__name__)
                wait = getattr(error, "seconds", 0.0)
                if tried >= manners.tries or wait > manners.longest_pause:
                    asked = f", to be asked again in {wait:.0f} s" if wait else f" in try {tried}"
                    raise Unanswered(reason + asked) from None
                self.closed_until[host] = max(self.closed_until[host], loop.time() + wait)
                await asyncio.sleep(manners.pause * 2 ** (tried - 1))

    async def file(self, url: str, path: Path, bar: tqdm) -> None:
        """Download to ``path``, going on after the bytes of an earlier try if the server still has the same file."""
        part, tag = path.with_name(path.name + ".partial"), path.with_name(path.name + ".version")
        part.touch()
        await self.patiently(url, lambda: self.rest_of_file(url, part, tag, bar), lambda: part.stat().st_size)
        os.replace(part, path)
        tag.unlink(missing_ok=True)

    async def rest_of_file(self, url: str, part: Path, tag: Path, bar: tqdm) -> None:
        """One try to append to ``part`` what it lacks of the version that ``tag`` names, else to fill both anew."""
        have = part.stat().st_size if tag.exists() else 0
        wanted = {"Range": f"bytes={have}-", "If-Range": tag.read_text()} if have else {}
        try:
            async with self.answer(url, wanted) as (response, chunks):
                with part.open("ab") as file:
                    if response.status_code == 206:
                        span, _, total = response.headers.get("Content-Range", "").rpartition("/")
                        if not span.startswith(f"bytes {have}-"):
                            raise Stale("HTTP 206 with another range")
                    else:  # the whole file: the server knows no ranges, or has another version by now
                        total = response.headers.get("Content-Length", "*")
                        file.truncate(0)
                        tag.unlink(missing_ok=True)
                        if version := strong_version(response):
                            write_atomically(tag, lambda temporary: temporary.write_text(version))
                    bar.total, bar.n = int(total) if total.isdecimal() else None, part.stat().st_size
                    async for chunk in chunks:
                        bar.update(file.write(chunk))
            if total not in ("*", str(part.stat().st_size)):
                raise Stale(f"{part.stat().st_size} bytes of {total}")
        except Stale:
            tag.unlink(missing_ok=True)
            raise

    async def picture(self, url: str) -> tuple[bytes, str]:
        """A picture as the server stores it, and the file ending of its format."""

        async def attempt() -> bytes:
            content = bytearray()
            async with self.answer(url, {}) as (_, chunks):
                async for chunk in chunks:
                    content += chunk
                    if len(content) > self.manners.picture_bytes:
                        raise Refused(f"more than {self.manners.picture_bytes} bytes")
            return bytes(content)

        content = await self.patiently(url, attempt)
        return content, picture_ending(content, self.manners.picture_pixels)


def retry_after(response: httpx.Response) -> float:
    """The seconds that a server asks for, given as such or as a date; 0 when it does not."""
    value = response.headers.get("Retry-After", "0")
    if value.isdecimal():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # neither seconds nor a date with its zone
        return 0.0


def strong_version(response: httpx.Response) -> str:
    """What names this version of a file in If-Range: its ETag unless a weak one, else when it was changed, else ""."""
    tag = response.headers.get("ETag", "")
    version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return version if version.isascii() else ""  # others can't be sent back


def picture_ending(content: bytes, most_pixels: int) -> str:
    """The file ending of a whole picture of at most ``most_pixels``; anything else is ``Refused``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the stricter limit
            image = Image.open(io.BytesIO(content), formats=list(FORMATS))
        width, height = image.size
        if width * height > most_pixels or min(width, height) < 10:  # 1 x 1 stands in for a picture that is gone
            raise Refused(f"{width} x {height} pixels")
        image.load()
    except Image.DecompressionBombError:
        raise Refused(f"more than {most_pixels} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError):
        raise Refused("not a whole JPEG, PNG, GIF or WebP picture") from None
    return FORMATS[image.format]


def finish(work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` to its end, in a notebook as well, where an event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with start_blocking_portal() as portal:
        portal.call(work)


def download(url: str, path: Path, manners: Manners = POLITE, progress: bool = False) -> None:
    """Download one file to ``path``; one that is there is kept.

    Raises:
        InputError: it does not come; what did is kept for another try.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)

    async def run() -> None:
        with tqdm(desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
            async with Fetcher(manners) as fetcher:
                await fetcher.file(url, path, bar)

    try:
        finish(run)
    except Refused as error:
        raise InputError(f"{url} can't be downloaded ({error}); check the address.") from None
    except Unanswered as error:
        raise InputError(f"{url} did not come ({error}); {AGAIN}.") from None


class Gallery:
    """The pictures in a folder, and in another one the reasons of those that don't come, a file each."""

    def __init__(self, folder: Path, failures: Path) -> None:
        self.folder, self.failures = folder, failures
        for path in (folder, failures):
            path.mkdir(parents=True, exist_ok=True)
        self.files = {path.stem: path for path in folder.iterdir() if path.suffix in FORMATS.values()}
        written = (path for path in failures.iterdir() if path.suffix != ".partial")
        self.reasons = {path.name: path.read_text(encoding="utf-8") for path in written}

    def add(self, name: str, content: bytes, ending: str) -> None:
        """Keep a picture."""
        self.files[name] = self.folder / (name + ending)
        write_atomically(self.files[name], lambda path: path.write_bytes(content))

    def fail(self, name: str, reason: str) -> None:
        """Note that a picture does not come."""
        self.reasons[name] = reason
        write_atomically(self.failures / name, lambda path: path.write_text(reason, encoding="utf-8"))


def fetch_pictures(
    urls: dict[str, str], folder: Path, failures: Path, manners: Manners = POLITE, progress: bool = False
) -> tuple[dict[str, Path], dict[str, str]]:
    """Fetch pictures, a few at a time; those that came or failed in an earlier call are not asked for again.

    Args:
        urls: by file name without its ending.
        folder: where the pictures are put, as the server stores them.
        failures: folder for the reasons of those that don't come.

    Returns:
        The file of each picture that came, and the reason of each that did not, by name.

    Raises:
        InputError: no picture comes any more; what did is kept.
    """
    gallery, unanswered = Gallery(folder, failures), {}  # since the last answer, the reasons by name
    missing = [name for name in urls if name not in gallery.files and name not in gallery.reasons]
    queue = iter(missing)

    async def work(fetcher: Fetcher) -> None:
        for name in queue:
            try:
                gallery.add(name, *await fetcher.picture(urls[name]))
            except Refused as error:
                gallery.fail(name, str(error))
            except Unanswered as error:
                unanswered[name] = str(error)
                if len(unanswered) >= manners.unanswered:
                    raise no_more() from None
            if name not in unanswered:
                settle()
            bar.update()

    def settle() -> None:
        while unanswered:
            gallery.fail(*unanswered.popitem())

    def no_more() -> InputError:
        name, reason = next(reversed(unanswered.items()))
        there = f"{len(gallery.files):,} of {len(urls):,} are there"
        return InputError(f"Pictures no longer come ({urls[name]}: {reason}), {there}; {AGAIN}.")

    async def network_is_up(fetcher: Fetcher) -> bool:
        """Is a picture that came once answered again?"""
        came = next((name for name in urls if name in gallery.files), None)
        try:
            return came is not None and bool(await fetcher.picture(urls[came]))
        except Refused:
            return True
        except Unanswered:
            return False

    async def run() -> None:
        async with Fetcher(manners) as fetcher:
            async with asyncio.TaskGroup() as group:
                for _ in range(manners.connections):
                    group.create_task(work(fetcher))
            if unanswered and not await network_is_up(fetcher):
                raise no_more()

    done = len(urls) - len(missing)
    with tqdm(desc="pictures", total=len(urls), initial=done, unit="picture", disable=not progress) as bar:
        try:
            finish(run)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
    settle()
    return tuple({name: kind[name] for name in urls if name in kind} for kind in (gallery.files, gallery.reasons))
