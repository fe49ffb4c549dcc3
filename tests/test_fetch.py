"""Downloads end whole or in one sentence, whatever the server does; pictures come or have a reason."""

import asyncio
import errno
import io
import re
import signal
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
import web
from made_amazon import picture
from PIL import Image
from web import Web

from imecd_lite import fetch
from imecd_lite.errors import InputError
from imecd_lite.fetch import POLITE, Manners, download, fetch_pictures, picture_ending, retry_after, strong_version

QUICK = Manners(connections=2, tries=3, pause=0.01, longest_pause=5.0, patience=1.5, progress=100_000, unanswered=6)
BIG = bytes(range(256)) * 4000  # a megabyte


@pytest.fixture
def interrupts():
    """Ctrl-C interrupts, even where the tests were started in the background and are to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def server():
    with Web({"/big": BIG}) as server:
        yield server


# A big file


def test_a_download_is_the_file_and_nothing_else_is_left(server, tmp_path):
    download(server.url + "/big", tmp_path / "raw" / "big", QUICK)
    assert (tmp_path / "raw" / "big").read_bytes() == BIG
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["big"]
    assert server.asked[0][1]["User-Agent"].startswith("imecd-lite/")


def test_what_is_there_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "big").write_bytes(b"mine")
    download(server.url + "/big", tmp_path / "big", QUICK)
    assert (tmp_path / "big").read_bytes() == b"mine" and not server.asked


@pytest.mark.parametrize(
    "faults",
    [
        [web.status(500)],
        [web.status(503), web.status(429)],
        [web.cut_off],
        [web.cut_off, web.cut_off, web.status(500)],
        [web.hang],
        [web.stall],
        [web.trickle],
        [web.cut_off, web.no_ranges],
        [web.cut_off, web.status(416)],
        [web.cut_off, web.trickle],
    ],
    ids=lambda faults: ", ".join(getattr(fault, "__name__", "?") for fault in faults),
)
def test_a_download_survives_a_fault(server, tmp_path, faults):
    server.faults["/big"] = list(faults)
    download(server.url + "/big", tmp_path / "big", QUICK)
    assert (tmp_path / "big").read_bytes() == BIG


def test_a_download_goes_on_after_the_bytes_it_has(server, tmp_path):
    server.faults["/big"] = [web.cut_off]
    download(server.url + "/big", tmp_path / "big", QUICK)
    assert server.asked[1][1]["Range"] == f"bytes={len(BIG) // 2}-"


@pytest.mark.parametrize("fault", [web.status(503), web.status(429, Retry_After=0), web.hang])
def test_a_try_that_brings_nothing_costs_none_of_the_bytes_that_are_there(server, tmp_path, fault):
    server.faults["/big"] = [web.cut_off, fault]
    download(server.url + "/big", tmp_path / "big", QUICK)
    assert (tmp_path / "big").read_bytes() == BIG
    assert [headers.get("Range") for _, headers in server.asked] == [None, *[f"bytes={len(BIG) // 2}-"] * 2]


def test_an_interrupted_download_goes_on_in_the_next_call(server, tmp_path):
    server.always["/big"] = web.cut_off
    with pytest.raises(InputError, match=r"/big did not come .*give the same command again later"):
        download(server.url + "/big", tmp_path / "big", QUICK)
    there = (tmp_path / "big.partial").stat().st_size
    assert 0 < there < len(BIG) and not (tmp_path / "big").exists()
    server.always.clear()
    server.asked.clear()
    download(server.url + "/big", tmp_path / "big", QUICK)
    assert (tmp_path / "big").read_bytes() == BIG
    assert [headers["Range"] for _, headers in server.asked] == [f"bytes={there}-"]


def test_two_versions_of_a_file_are_not_mixed(server, tmp_path, monkeypatch):
    server.always["/big"] = web.cut_off
    with pytest.raises(InputError):
        download(server.url + "/big", tmp_path / "big", QUICK)
    server.always.clear()
    server.pages["/big"] = newer = bytes(reversed(BIG))
    bars, bar = [], fetch.tqdm
    monkeypatch.setattr(fetch, "tqdm", lambda **options: bars.append(bar(**options)) or bars[0])
    download(server.url + "/big", tmp_path / "big", QUICK, progress=True)
    assert (tmp_path / "big").read_bytes() == newer
    assert bars[0].n == bars[0].total == len(BIG), "the bar begins anew with the file"


def test_tries_are_counted_anew_while_bytes_come(server, tmp_path):
    server.faults["/big"] = [web.cut_off, web.cut_off, web.cut_off, web.status(500)]  # halves: 500, 250, 125 kB
    download(server.url + "/big", tmp_path / "big", QUICK)
    assert (tmp_path / "big").read_bytes() == BIG


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (web.status(404), r"can't be downloaded \(HTTP 404\); check"),
        (web.status(403), r"can't be downloaded \(HTTP 403\); check"),
        (web.around, r"can't be downloaded \(Exceeded maximum allowed redirects.\); check"),
        (web.status(302, Location="ftp://host/big"), r"can't be downloaded \(.*protocol"),
        (web.status(500), r"did not come \(HTTP 500 in try 3\); give the same command again"),
        (web.hang, r"did not come \(too slow in try 3\); give the same command again"),
        (web.trickle, r"did not come \(too slow in try 3\); give the same command again"),
        (web.status(503, Retry_After=86400), r"did not come \(HTTP 503, to be asked again in 86400 s\)"),
    ],
    ids=["404", "403", "redirect loop", "other protocol", "500", "hang", "trickle", "closed for the day"],
)
def test_a_download_that_never_comes_is_one_sentence(server, tmp_path, fault, reason):
    server.always["/big"] = fault
    with pytest.raises(InputError, match=reason) as caught:
        download(server.url + "/big", tmp_path / "big", QUICK)
    assert "\n" not in str(caught.value) and not (tmp_path / "big").exists()


def test_no_server_is_one_sentence(tmp_path):
    with Web() as server:
        url = server.url
    with pytest.raises(InputError, match=r"did not come \(.+\)"):
        download(url + "/big", tmp_path / "big", QUICK)


def test_a_server_that_asks_for_a_pause_gets_it(server, tmp_path):
    server.faults["/big"] = [web.status(429, Retry_After=1)]
    started = time.monotonic()
    download(server.url + "/big", tmp_path / "big", QUICK)
    assert time.monotonic() - started >= 1


def test_retry_after_is_read_as_seconds_or_as_a_date():
    def seconds(value: str) -> float:
        return retry_after(httpx.Response(503, headers={"Retry-After": value}))

    assert seconds("7") == 7
    assert 1000 < seconds(formatdate(time.time() + 2000, usegmt=True)) <= 2000
    for nothing in ("soon", "-5", "Fri, 27 Nov 2099 07:00:00", formatdate(time.time() - 100, usegmt=True)):
        assert seconds(nothing) == 0
    assert retry_after(httpx.Response(503)) == 0


def test_a_version_is_what_can_be_sent_back():
    def version(**headers: bytes) -> str:
        named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
        return strong_version(httpx.Response(200, headers=named))

    assert version(ETag=b'"a"', Last_Modified=b"Monday") == '"a"'
    assert version(ETag=b'W/"a"', Last_Modified=b"Monday") == "Monday"
    assert version(ETag=b'"\xe9"') == version(Last_Modified=b"\xe9") == version() == ""


# Pictures


def fetched(server: Web, folder: Path, names: list[str], manners: Manners = QUICK) -> tuple[dict, dict]:
    """The bytes of the pictures that came and the reasons of those that did not."""
    urls = {name: f"{server.url}/{name}.jpg" for name in names}
    files, reasons = fetch_pictures(urls, folder / "images", folder / "failed", manners)
    assert files.keys() | reasons.keys() == set(names) and not files.keys() & reasons.keys()
    return {name: path.read_bytes() for name, path in files.items()}, reasons


def gallery(server: Web, count: int) -> list[str]:
    """So many good pictures on the server."""
    server.pages |= {f"/p{number}.jpg": picture(number) for number in range(count)}
    return [f"p{number}" for number in range(count)]


def test_pictures_are_stored_as_they_are_a_few_at_a_time(server, tmp_path):
    names = gallery(server, 12)

    def slow(handler):
        time.sleep(0.02)
        web.whole(handler)

    server.always |= dict.fromkeys(server.pages, slow)
    pictures, reasons = fetched(server, tmp_path, names)
    assert pictures == {name: server.pages[f"/{name}.jpg"] for name in names} and not reasons
    assert server.most_at_once == QUICK.connections
    assert all(headers["User-Agent"].startswith("imecd-lite/") for _, headers in server.asked)


@pytest.mark.parametrize(("kind", "ending"), fetch.FORMATS.items())
def test_a_picture_has_the_ending_of_its_format_not_of_its_address(server, tmp_path, kind, ending):
    server.pages["/a.jpg"] = picture(1, kind)
    fetched(server, tmp_path, ["a"])
    with Image.open(tmp_path / "images" / f"a{ending}") as image:
        assert image.format == kind


def bomb() -> bytes:
    """A few kilobytes that would be a hundred megapixels."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


def answer(body: bytes):
    """A good answer with this body."""
    return lambda handler: handler.reply(200, {"Content-Length": len(body)}, body)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (web.status(404), "HTTP 404"),
        (web.around, "Exceeded maximum allowed redirects."),
        (answer(b"<html>Not here</html>"), "not a whole JPEG, PNG, GIF or WebP picture"),
        (answer(b""), "not a whole JPEG, PNG, GIF or WebP picture"),
        (answer(picture(1, size=(300, 300))[:-200]), "not a whole JPEG, PNG, GIF or WebP picture"),
        (answer(picture(1, "PNG", (300, 300))[:-60]), "not a whole JPEG, PNG, GIF or WebP picture"),
        (answer(picture(1, "BMP")), "not a whole JPEG, PNG, GIF or WebP picture"),
        (answer(bomb()), "10000 x 10000 pixels"),
        (answer(picture(1, "GIF", (1, 1))), "1 x 1 pixels"),
        (answer(bytes(200_000)), "more than 100000 bytes"),
        (web.status(500), "HTTP 500 in try 2"),
        (web.cut_off, "peer closed connection .* in try 2"),
        (web.hang, "too slow in try 2"),
        (web.trickle, "too slow in try 2"),
        (web.status(429, Retry_After=3600), "HTTP 429, to be asked again in 3600 s"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_picture_that_fails_has_a_reason_and_the_others_come(server, tmp_path, fault, reason, recwarn):
    names = gallery(server, 4)
    server.always["/p1.jpg"] = fault
    manners = replace(QUICK, tries=2, picture_bytes=100_000)
    pictures, reasons = fetched(server, tmp_path, names, manners)
    assert pictures.keys() == {"p0", "p2", "p3"} and list(reasons) == ["p1"]
    assert re.fullmatch(reason, reasons["p1"])
    assert not [warning for warning in recwarn if issubclass(warning.category, Image.DecompressionBombWarning)]
    server.asked.clear()
    assert fetched(server, tmp_path, names) == (pictures, reasons)
    assert not server.asked, "what came or failed was asked for again"


def test_a_fault_that_passes_costs_no_picture(server, tmp_path):
    names = gallery(server, 5)
    for path, fault in zip(
        ("/p0.jpg", "/p1.jpg", "/p2.jpg", "/p3.jpg"), (web.status(500), web.cut_off, web.hang, web.stall), strict=True
    ):
        server.faults[path] = [fault]
    pictures, reasons = fetched(server, tmp_path, names)
    assert pictures.keys() == set(names) and not reasons


def test_a_pause_that_one_picture_is_asked_for_holds_for_all_of_the_host(server, tmp_path):
    names = gallery(server, 8)
    server.faults["/p0.jpg"] = [web.status(429, Retry_After=1)]
    times = []

    def timed(handler):
        times.append(time.monotonic())
        web.whole(handler)

    server.always |= dict.fromkeys(server.pages, timed)
    started = time.monotonic()
    pictures, _ = fetched(server, tmp_path, names)
    assert len(pictures) == 8
    assert sum(moment < started + 0.9 for moment in times) <= QUICK.connections  # those already on their way


def test_pictures_come_where_an_event_loop_is_running_as_in_a_notebook(server, tmp_path):
    names = gallery(server, 3)

    async def cell():
        return fetched(server, tmp_path, names)

    pictures, reasons = asyncio.run(cell())
    assert pictures.keys() == set(names) and not reasons


def test_an_interrupt_in_a_notebook_ends_the_fetch_at_once(server, tmp_path, interrupts):
    names, main = gallery(server, 5), threading.main_thread().ident
    server.always |= {f"/p{number}.jpg": web.hang for number in range(1, 5)}

    async def cell():
        threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
        fetched(server, tmp_path, names, replace(QUICK, patience=20.0))

    started, loop = time.monotonic(), asyncio.new_event_loop()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(cell())
    loop.close()
    assert time.monotonic() - started < 10 and (tmp_path / "images/p0.jpg").exists()


@pytest.mark.parametrize(
    "address",
    ["http://[", "ftp://host/b.jpg", "http://", "http://127.0.0.1:99999/", "http://xn--a/", "data:image/png,"],
)
def test_an_address_that_is_none_is_a_reason_and_the_others_come(server, tmp_path, address):
    server.pages["/a.jpg"], server.always["/b.jpg"] = picture(1), web.status(302, Location=address)
    urls = {"given": address, "elsewhere": server.url + "/b.jpg", "good": server.url + "/a.jpg"}
    files, reasons = fetch_pictures(urls, tmp_path / "images", tmp_path / "failed", replace(QUICK, tries=1))
    assert files.keys() == {"good"} and reasons.keys() == {"given", "elsewhere"}
    with pytest.raises(InputError, match=r"can't be downloaded \(.+\); check the address|did not come"):
        download(address, tmp_path / "file", replace(QUICK, tries=1))


def test_a_network_that_is_down_is_one_sentence_and_nothing_is_lost(server, tmp_path):
    names, one_by_one = gallery(server, 20), replace(QUICK, connections=1)  # the good ones come first
    server.always |= {f"/p{number}.jpg": web.status(503) for number in range(5, 20)}
    with pytest.raises(InputError, match=r"Pictures no longer come \(.*HTTP 503.*\), 5 of 20 are there; give the same"):
        fetched(server, tmp_path, names, one_by_one)
    server.always.clear()
    server.asked.clear()
    pictures, reasons = fetched(server, tmp_path, names)
    assert pictures.keys() == set(names) and not reasons
    assert len(server.asked) == 15


def test_few_pictures_and_no_network_is_not_a_catalogue_without_pictures(tmp_path):
    with Web() as server:
        pass
    with pytest.raises(InputError, match=r"Pictures no longer come \(.*\), 0 of 1 are there"):
        fetch_pictures({"a": server.url + "/a.jpg"}, tmp_path / "images", tmp_path / "failed", QUICK)


@pytest.mark.parametrize("came", [3, 8])
def test_a_network_that_goes_down_at_the_last_few_pictures_loses_none(server, tmp_path, came):
    names, one_by_one = gallery(server, 10), replace(QUICK, connections=1)
    fetched(server, tmp_path, names[:3], one_by_one)  # in an earlier call
    after = set(names[came:])
    server.always |= {f"/{name}.jpg": web.status(503) for name in after | set(names[:1])}
    with pytest.raises(
        InputError, match=rf"Pictures no longer come \(.*HTTP 503.*\), {came} of 10 are there; give the"
    ):
        fetched(server, tmp_path, names, one_by_one)
    server.always.clear()
    pictures, reasons = fetched(server, tmp_path, names)
    assert pictures.keys() == set(names) and not reasons


def test_a_host_that_is_gone_for_good_is_a_reason_even_at_the_end(server, tmp_path):
    names = gallery(server, 3)
    with Web() as gone:
        pass
    urls = {name: f"{server.url}/{name}.jpg" for name in names} | {"last": f"{gone.url}/last.jpg"}
    pictures, reasons = fetch_pictures(urls, tmp_path / "images", tmp_path / "failed", QUICK)
    assert pictures.keys() == set(names) and reasons.keys() == {"last"}


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def control_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("strike", "error"), [(control_c, KeyboardInterrupt), (full_disk, OSError)])
def test_an_interrupt_keeps_what_came(server, tmp_path, monkeypatch, interrupts, strike, error):
    names, written = gallery(server, 10), fetch.write_atomically

    def write(path, content):
        written(path, content)
        if len(list((tmp_path / "images").glob("*.jpg"))) == 4:
            strike()

    monkeypatch.setattr(fetch, "write_atomically", write)
    with pytest.raises(error):
        fetched(server, tmp_path, names)
    monkeypatch.undo()
    there = {path.name for path in (tmp_path / "images").glob("*.jpg")}
    server.asked.clear()
    pictures, _ = fetched(server, tmp_path, names)
    assert pictures.keys() == set(names) and 4 <= len(there) < 10
    assert not {path[1:] for path, _ in server.asked} & there, "what came was asked for again"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    content = bomb()
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(fetch.Refused, match="10000 x 10000"):
        picture_ending(content, POLITE.picture_pixels)
