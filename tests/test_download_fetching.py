"""One file over HTTP: whole and verified or not there, whatever the server does."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from email.utils import formatdate

import pytest
from download_server import answers, corrupts, drops_after, serving, truncates

from einthoven.download.fetching import Fetcher, RemoteFile
from einthoven.download.patience import (
    DownloadStopped,
    Patience,
    Politeness,
    retry_after_seconds,
)
from einthoven.errors import DownloadError

CONTENT = bytes(range(256)) * 1500  # six chunks
HURRIED = Patience(tries=4, first_wait=0.01, longest_wait=0.02, connect=2, read=2)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.dat").write_bytes(CONTENT)
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "here" / "a.dat"


def part_of(target):
    return target.with_name(".a.part")


def remote(server, has_checksum=True):
    checksum = hashlib.sha256(CONTENT).hexdigest() if has_checksum else ""
    return RemoteFile("a.dat", f"{server.address}/a.dat", "sha256" if checksum else "", checksum)


def fetcher(rate=0.0, patience=HURRIED):
    return Fetcher(Politeness(rate, threading.Event()), patience)


def fetch(server, target, has_checksum=True):
    fetcher().fetch(remote(server, has_checksum), target, part_of(target))


def test_a_file_arrives_whole_and_leaves_no_part(server, target):
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["a.dat"]


def test_a_broken_connection_is_gone_on_with_from_the_byte_where_it_broke(server, target):
    server.fail("a.dat", drops_after(100_000), drops_after(150_000))
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["100000", "250000"]
    assert server.given["a.dat"] == len(CONTENT)


def test_tries_that_bring_new_bytes_count_for_nothing(server, target):
    server.fail("a.dat", *[drops_after(30_000)] * 10)
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_the_file_over(server, target):
    server.knows_ranges = False
    server.fail("a.dat", drops_after(100_000))
    fetch(server, target, has_checksum=False)
    assert target.read_bytes() == CONTENT


def test_a_file_that_has_changed_meanwhile_is_not_joined_to_its_old_half(server, target):
    def changes_and_drops(handler, content, start):
        drops_after(100_000)(handler, content, start)
        server.version = "2"
        (server.folder / "a.dat").write_bytes(CONTENT[::-1])
        return True

    server.fail("a.dat", changes_and_drops)
    fetch(server, target, has_checksum=False)
    assert server.ranges == ["100000"]
    assert target.read_bytes() == CONTENT[::-1]


def test_a_corrupted_file_is_fetched_once_more(server, target):
    server.fail("a.dat", corrupts)
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == ["a.dat", "a.dat"]


@pytest.mark.parametrize("fault", [corrupts, truncates])
def test_a_file_that_is_wrong_twice_is_reported_and_not_kept(server, target, fault):
    server.fail("a.dat", fault, fault, fault)
    with pytest.raises(DownloadError, match=r"its sha256 is .* where the archive says .*, twice"):
        fetch(server, target)
    assert list(target.parent.iterdir()) == []
    assert len(server.asked) == 2


def test_a_wrong_file_does_not_take_the_place_of_the_one_that_is_there(server, target):
    target.parent.mkdir()
    target.write_bytes(b"older")
    server.fail("a.dat", corrupts, corrupts)
    with pytest.raises(DownloadError):
        fetch(server, target)
    assert target.read_bytes() == b"older"


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_a_busy_server_asks_for_is_kept(server, target, status):
    server.fail("a.dat", answers(status, Retry_After="1"))
    fetch(server, target)
    assert server.asked_at[1] - server.asked_at[0] >= 1
    assert target.read_bytes() == CONTENT


def test_a_busy_server_is_left_in_peace_by_every_connection():
    politeness = Politeness(0, threading.Event())
    politeness.be_quiet(0.2)
    began = time.monotonic()
    politeness.wait_for_turn()
    assert time.monotonic() - began >= 0.2


def test_waits_asked_for_as_a_date_are_understood():
    assert 50 < retry_after_seconds(formatdate(time.time() + 60, usegmt=True)) < 61


def test_a_server_that_stays_broken_is_given_up_after_some_tries(server, target):
    server.fail("a.dat", *[answers(503)] * 9)
    with pytest.raises(DownloadError, match="status 503, 4 times"):
        fetch(server, target)
    assert len(server.asked) == 4


@pytest.mark.parametrize(("status", "said"), [(404, "does not have"), (403, "open to all")])
def test_what_is_not_given_is_not_asked_for_again(server, target, status, said):
    server.fail("a.dat", answers(status))
    with pytest.raises(DownloadError, match=said):
        fetch(server, target)
    assert server.asked == ["a.dat"]


def test_a_host_that_cannot_be_reached_is_named(target):
    file = RemoteFile("a.dat", "http://127.0.0.1:9/a.dat")
    with pytest.raises(DownloadError, match=r"127.0.0.1:9 cannot be reached \(.*refused.*\)"):
        fetcher().fetch(file, target, part_of(target))


def test_a_server_that_falls_silent_is_asked_again(server, target):
    def falls_silent(handler, content, start):
        handler.begin(len(content), start)
        handler.give(content[:65536])
        time.sleep(1)
        handler.close_connection = True
        return True

    server.fail("a.dat", falls_silent)
    fetcher(patience=Patience(first_wait=0.01, read=0.3)).fetch(
        remote(server), target, part_of(target)
    )
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_all_there_needs_no_byte_more(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.given == {}


def test_a_part_longer_than_the_file_is_thrown_away(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_a_stop_keeps_what_has_come(server, target):
    server.chunk_pause = 0.1
    asking = fetcher()
    threading.Timer(0.25, asking.politeness.stop.set).start()
    with pytest.raises(DownloadStopped):
        asking.fetch(remote(server), target, part_of(target))
    assert 0 < part_of(target).stat().st_size < len(CONTENT)
    assert not target.exists()


def test_the_limit_of_bytes_per_second_is_kept(server, target):
    began = time.monotonic()
    fetcher(rate=1.0).fetch(remote(server), target, part_of(target))
    assert time.monotonic() - began >= 0.9 * len(CONTENT) / 1e6


def test_the_program_says_who_it_is(server, target):
    fetch(server, target)
    assert {agent.partition("/")[0] for agent in server.agents} == {"einthoven"}


def test_passwords_of_a_netrc_file_are_not_sent(server, target, tmp_path, monkeypatch):
    seen = []

    def looks(handler, content, start):
        seen.append(handler.headers.get("Authorization"))
        return False

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.fail("a.dat", looks)
    fetch(server, target)
    assert seen == [None]


def test_a_file_behind_a_redirect_is_fetched(server, target):
    class Redirecting(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"{server.address}/a.dat")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Redirecting) as first:
        threading.Thread(target=first.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{first.server_address[1]}/1234"
        fetcher().fetch(RemoteFile("a.dat", url), target, part_of(target))
    assert target.read_bytes() == CONTENT


# Answers that are not what they seem -------------------------------------------------------------


def test_a_short_wait_that_is_asked_for_again_and_again_grows(server, target):
    waits = []
    asking = fetcher(patience=Patience(first_wait=1, longest_wait=8))
    asking.politeness.sleep = waits.append
    asking.politeness.be_quiet = lambda seconds: None
    server.fail("a.dat", *[answers(429, Retry_After="1")] * 7)
    asking.fetch(remote(server), target, part_of(target))
    assert target.read_bytes() == CONTENT
    asked = [wait for wait in waits if wait]
    assert [wait >= least for wait, least in zip(asked, (1, 2, 4, 8, 8, 8, 8), strict=True)] == (
        [True] * 7
    )


def test_a_server_that_gives_a_range_in_pieces_is_asked_for_the_rest(server, target):
    def gives_a_piece(handler, content, start):
        handler.send_response(206)
        handler.send_header("Content-Length", "1000")
        handler.send_header("Content-Range", f"bytes {start}-{start + 999}/{len(content)}")
        handler.end_headers()
        handler.give(content[start : start + 1000])
        return True

    server.fail("a.dat", drops_after(100_000), gives_a_piece, gives_a_piece)
    fetch(server, target, has_checksum=False)
    assert server.ranges == ["100000", "101000", "102000"]
    assert target.read_bytes() == CONTENT


def test_a_part_of_the_file_that_nobody_asked_for_is_not_taken_for_the_file(server, target):
    def unasked(handler, content, start):
        handler.send_response(206)
        handler.send_header("Content-Length", "1000")
        handler.send_header("Content-Range", f"bytes 0-999/{len(content)}")
        handler.end_headers()
        handler.give(content[:1000])
        return True

    server.fail("a.dat", unasked)
    fetch(server, target, has_checksum=False)
    assert server.asked == ["a.dat", "a.dat"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("has_checksum", [True, False])
def test_a_body_without_a_length_is_taken_only_where_a_checksum_proves_it(
    server, target, has_checksum
):
    def says_no_length(handler, content, start):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.give(content)
        return True

    server.fail("a.dat", says_no_length)
    if has_checksum:
        fetch(server, target)
        assert target.read_bytes() == CONTENT
    else:
        with pytest.raises(DownloadError, match="does not say how long it is"):
            fetch(server, target, has_checksum=False)


def drips(handler, content, start):
    """A byte now and then, for as long as somebody listens."""
    handler.begin(len(content), start)
    for at in range(start, start + 40):
        try:
            handler.wfile.write(content[at : at + 1])
        except OSError:
            break
        time.sleep(0.05)
    handler.close_connection = True
    return True


def test_a_server_that_drips_is_given_up(server, target):
    server.fail("a.dat", *[drips] * 5)
    patient = Patience(tries=2, first_wait=0.01, longest_wait=0.02, read=0.3)
    with pytest.raises(DownloadError, match=r"only \d+ bytes came in .* seconds, 2 times"):
        fetcher(patience=patient).fetch(remote(server), target, part_of(target))


def test_a_stop_does_not_wait_for_a_server_that_drips(server, target):
    server.fail("a.dat", drips)
    asking = fetcher()
    threading.Timer(0.2, asking.politeness.stop.set).start()
    with pytest.raises(DownloadStopped):
        asking.fetch(remote(server), target, part_of(target))
    assert 0 < part_of(target).stat().st_size < 40
