"""Load on `headclip serve`: many clients at once, latency, images a second, refusals and memory.

    python benchmarks/serve.py --clients 64 --seconds 60

Starts a server on the embedded model, or takes a running one with --url. Every client sends one picture after the
other; one that is told to come back (429) waits as long as Retry-After says. Any other refusal is an error, and the
exit status is 1. Memory is the server's resident set, read every second while it works; it is known only for a server
started here. It is printed for every tenth second, with the slope of a straight line through its lowest values in each
ten seconds from the tenth on: by then the queue and the answers on their way have the room they take. How many they are
changes from moment to moment, and the C library gives large blocks back when it likes; a leak would lift the floor.
"""

from __future__ import annotations

import argparse
import http.client
import io
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

PICTURES = 16
EVERY = 10  # seconds between the figures of memory that are printed
SETTLED = 10.0  # seconds until buffers and queue have their size


@dataclass
class Tally:
    """What the clients saw; seconds are those of answers with a judgement."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, status: int | str, seconds: float) -> None:
        with self.lock:
            self.statuses[status] += 1
            if status == 200:
                self.seconds.append(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", type=int, default=512, help="side of the pictures, in pixels")
    parser.add_argument("--queue", type=int, default=128, help="images that may wait in the server")
    parser.add_argument("--url", help="a running server instead of one started here")
    options = parser.parse_args()
    with _server(options.url, options.queue) as (address, process):
        pictures = [_picture(options.size, seed) for seed in range(PICTURES)]
        _send(address, pictures[0])  # the first one warms the model
        tally = Tally()
        started = time.monotonic()
        clients = [
            threading.Thread(target=_client, args=(address, pictures, number, started + options.seconds, tally))
            for number in range(options.clients)
        ]
        memory = [(0.0, _resident(process))]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(max(0.0, started + len(memory) - time.monotonic()))
            memory.append((time.monotonic() - started, _resident(process)))
        for client in clients:
            client.join()
        elapsed = time.monotonic() - started
        time.sleep(2.0)
        memory.append((time.monotonic() - started, _resident(process)))
        alive = _send(address, pictures[0])[0] == 200
    _report(options.clients, tally, elapsed, alive)
    if process is not None:
        _report_memory(memory)
    if not alive or set(tally.statuses) - {200, 429}:
        raise SystemExit(1)


def _report(clients: int, tally: Tally, elapsed: float, alive: bool) -> None:
    seconds = np.array(tally.seconds or [float("nan")])
    judged = len(tally.seconds)
    print(f"{clients} clients, {elapsed:.1f} s, {judged} images judged, {judged / elapsed:.1f} images/s")
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    print(f"latency: median {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s, longest {seconds.max():.2f} s")
    print("answers: " + ", ".join(f"{status}: {count}" for status, count in sorted(tally.statuses.items(), key=str)))
    errors = sorted(str(status) for status in tally.statuses if status not in (200, 429))
    print(f"errors other than 429: {', '.join(errors) or 'none'}; the server {'lives' if alive else 'does not answer'}")


def _report_memory(memory: list[tuple[float, float]]) -> None:
    """The curve of (second, MiB): the start, every tenth second, the end after a pause, and the slope."""
    shown = memory[:-1:EVERY]
    curve = ", ".join(f"{round(second)} s: {size:.0f}" for second, size in [*shown, memory[-1]])
    print(f"memory of the server in MiB, {curve} (after a pause)")
    settled = [pair for pair in memory[:-1] if pair[0] >= SETTLED]
    windows = [settled[at : at + EVERY] for at in range(0, len(settled) - EVERY + 1, EVERY)]
    if len(windows) >= 3:
        floors = np.array([min(window, key=lambda pair: pair[1]) for window in windows])
        slope = 60 * np.polyfit(floors[:, 0], floors[:, 1], 1)[0]
        highest = max(size for _, size in memory)
        print(f"slope of its floor from {SETTLED:.0f} s on: {slope:+.2f} MiB/min; highest {highest:.0f} MiB")


def _client(address: str, pictures: list[bytes], number: int, stop: float, tally: Tally) -> None:
    turn = number
    while time.monotonic() < stop:
        started = time.monotonic()
        try:
            status, wait = _send(address, pictures[turn % len(pictures)])
        except OSError as error:
            status, wait = type(error).__name__, 0.1
        tally.add(status, time.monotonic() - started)
        turn += 1
        if wait:
            time.sleep(min(wait, max(0.0, stop - time.monotonic())))


def _send(address: str, picture: bytes) -> tuple[int | str, float]:
    """The status, and how long to wait before the next one."""
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request("POST", "/v1/predict", picture, {"content-type": "image/png"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, float(answer.headers.get("retry-after", 0))
    finally:
        connection.close()


@contextmanager
def _server(url: str | None, queue: int) -> Iterator[tuple[str, subprocess.Popen[str] | None]]:
    if url is not None:
        yield urlsplit(url).netloc, None
        return
    command = [sys.executable, "-m", "headclip", "serve", "--live", "--port", "0", "--timeout", "60"]
    command += ["--queue", str(queue)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://([^/\s]+)", line)
        if found is None:
            raise SystemExit("the server did not start")
        try:
            yield found.group(1), process
        finally:
            process.terminate()


def _resident(process: subprocess.Popen[str] | None) -> float:
    """MiB; nan where it cannot be known."""
    status = None if process is None else Path(f"/proc/{process.pid}/status")
    if status is None or not status.is_file():
        return float("nan")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text())
    return float("nan") if found is None else int(found.group(1)) / 1024


def _picture(side: int, seed: int) -> bytes:
    """A smooth noisy picture: neither as easy nor as hard to decode as can be."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (side // 16, side // 16, 3), dtype=np.uint8)).resize((side, side))
    pixels = np.clip(np.asarray(coarse) + rng.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
