"""Damage to sound files: at random, and along their structure, where checks of the outer shell do not stop it."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

INTEGERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, -0.0, 1e-320, float("nan"), float("inf"),
    "", "0", "nan", "x" * 5000, "../../etc/passwd", "/dev/zero", "a\0b", "\ud800", "\u202e", [], {}, [[]], [None],
    {"": ""}, [1, "a", None], 10**400, "1" * 5000,
)  # fmt: skip


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """One to eight changes anywhere: bits, bytes, numbers, pieces cut, doubled, moved, put in."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        if not data:
            return chance.randbytes(chance.randrange(64))
        chance.choice(_BYTE_CHANGES)(data, chance)
    return bytes(data)


def _flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _number(data: bytearray, chance: random.Random) -> None:
    code = chance.choice((">B", ">H", "<H", ">I", "<I"))
    size = struct.calcsize(code)
    # Headers are at the front, and that is where a number does most.
    end = len(data) if chance.random() < 0.4 else min(len(data), 256)
    place = chance.randrange(max(1, end - size + 1))
    data[place : place + size] = struct.pack(code, chance.choice(INTEGERS) & (256**size - 1))


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _remove(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randrange(1, 64)]


def _double(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    piece = data[start : start + chance.randrange(1, 256)]
    place = chance.randrange(len(data))
    data[place:place] = piece * chance.choice((1, 1, 2, 50))


def _put_in(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    data[place:place] = chance.randbytes(chance.randrange(1, 32))


def _overwrite(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    data[place : place + 16] = chance.choice((b"\0", b"\xff", chance.randbytes(1))) * chance.randrange(1, 64)


_BYTE_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _number, _number, _cut, _remove, _double, _put_in, _overwrite,
)  # fmt: skip


# --- PNG: chunks with right check sums around wrong content


def damage_png(content: bytes, chance: random.Random) -> bytes:
    """Change, double, move, remove or add chunks; check sums stay right, so that the decoder goes on."""
    chunks = _png_chunks(content)
    if len(chunks) < 2:
        return damage_bytes(content, chance)
    number = chance.randrange(len(chunks))
    kind, body = chunks[number]
    what = chance.randrange(6)
    if what == 0:
        chunks[number] = (kind, damage_bytes(body or b"\0", chance))
    elif what == 1:
        chunks.insert(chance.randrange(len(chunks)), (kind, body))
    elif what == 2:
        del chunks[number]
    elif what == 3:
        bomb = zlib.compress(bytes(chance.choice((10, 1 << 20, 8 << 20))), 9)
        text = chance.choice(((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")))
        chunks.insert(1, (text[0], text[1] + bomb))
    elif what == 4:
        header = bytearray(chunks[0][1].ljust(13, b"\0"))
        place = chance.choice((0, 4))
        header[place : place + 4] = struct.pack(">I", chance.choice(INTEGERS) & 0xFFFFFFFF)
        chunks[0] = (chunks[0][0], bytes(header))
    else:
        added = chance.choice(
            (b"acTL", b"fcTL", b"fdAT", b"PLTE", b"tRNS", b"eXIf", b"gAMA", b"pHYs", b"sRGB", b"cHRM")
        )
        chunks.insert(chance.randrange(1, len(chunks)), (added, chance.randbytes(chance.choice((0, 1, 8, 26, 768)))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


# --- TIFF: entries of the directory


def damage_tiff(content: bytes, chance: random.Random) -> bytes:
    """Change tag, type, count or value of entries of the first directory."""
    order = "<" if content[:2] == b"II" else ">"
    data = bytearray(content)
    if len(data) < 16 or content[2:4] not in (b"*\0", b"\0*"):
        return damage_bytes(content, chance)
    (place,) = struct.unpack_from(order + "I", data, 4)
    if place + 2 > len(data):
        return damage_bytes(content, chance)
    (count,) = struct.unpack_from(order + "H", data, place)
    for _ in range(chance.choice((1, 1, 2, 3))):
        entry = place + 2 + 12 * chance.randrange(max(1, count))
        if entry + 12 > len(data):
            continue
        code, where = chance.choice((("H", 0), ("H", 2), ("I", 4), ("I", 8), ("I", 8), ("H", 8)))
        value = chance.choice((*INTEGERS, 254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 317, 322, 324, 330, 339))
        struct.pack_into(order + code, data, entry + where, value & (0xFFFF if code == "H" else 0xFFFFFFFF))
    return bytes(data)


# --- JSON


def damage_json(content: bytes, chance: random.Random) -> bytes:
    """Other values, missing keys, doubled entries, or something that no parser likes."""
    what = chance.random()
    if what < 0.08:
        return damage_bytes(content, chance)
    if what < 0.12:
        depth = chance.choice((50, 900, 3000, 200_000))
        return b"[" * depth + b"]" * chance.choice((0, depth))
    if what < 0.14:
        return b'{"a":' * chance.choice((900, 100_000))
    value = json.loads(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        value = change_value(value, chance)
    return json.dumps(value).encode()


def damage_json_lines(content: bytes, chance: random.Random) -> bytes:
    """The same for one line, or lines doubled, removed and torn."""
    lines = content.splitlines()
    number = chance.randrange(len(lines))
    what = chance.randrange(5)
    if what < 3:
        lines[number] = damage_json(lines[number], chance).replace(b"\n", b" ")
    elif what == 3:
        lines.insert(chance.randrange(len(lines)), lines[number])
    else:
        return damage_bytes(content, chance)
    return b"\n".join(lines) + b"\n"


def change_value(value: Any, chance: random.Random) -> Any:
    """A JSON value with one change somewhere in it."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        changed = dict(value)
        what = chance.random()
        if what < 0.12:
            del changed[key]
        elif what < 0.2:
            changed[chance.choice(("extra", "", "__class__", key.upper()))] = changed[key]
        else:
            changed[key] = change_value(value[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.85:
        number = chance.randrange(len(value))
        changed_list = list(value)
        what = chance.random()
        if what < 0.12:
            del changed_list[number]
        elif what < 0.24:
            changed_list.append(changed_list[number])
        else:
            changed_list[number] = change_value(value[number], chance)
        return changed_list
    return chance.choice(STRANGE)


# --- text in columns


def damage_csv(content: bytes, chance: random.Random) -> bytes:
    """Cells, separators, quotes, lines and encodings."""
    lines = content.decode().splitlines()
    number = chance.randrange(len(lines))
    what = chance.randrange(8)
    if what == 0:
        return damage_bytes(content, chance)
    if what == 1:
        cells = lines[number].split(",")
        cells[chance.randrange(len(cells))] = str(chance.choice(STRANGE))
        lines[number] = ",".join(cells)
    elif what == 2:
        lines[number] += chance.choice((",", ",,,,", '"', ";", "\t", '"a\nb"', "\0"))
    elif what == 3:
        del lines[number]
    elif what == 4:
        lines.insert(0, lines[number])
    elif what == 5:
        return content.replace(b",", chance.choice((b";", b"\t", b"", b"|", b",,")))
    elif what == 6:
        return "\n".join(lines).encode(chance.choice(("utf-16", "utf-32", "utf-8-sig", "cp037")))
    else:
        lines[number] = '"' + "a" * chance.choice((10, 140_000)) + '"'
    return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


# --- safetensors: the header apart from the values


def damage_safetensors(content: bytes, chance: random.Random) -> bytes:
    """Change the header as JSON, its length, or any byte."""
    if chance.random() < 0.3 or len(content) < 8:
        return damage_bytes(content, chance)
    length = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + length], content[8 + length :]
    if chance.random() < 0.15:
        return struct.pack("<Q", chance.choice((*INTEGERS, 2**40, 2**63, 2**64 - 1))) + header + rest
    try:
        header = damage_json(header, chance)
    except ValueError:
        return damage_bytes(content, chance)
    return struct.pack("<Q", len(header)) + header + rest
