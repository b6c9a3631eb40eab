"""Ways to damage what a file holds, all of them drawn from one stream of chance."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import h5py
import numpy as np

Damage = Callable[[Random, Path], None]

NUMBERS = (
    *("0", "-1", "1", "1e308", "1.7e308", "-1e308", "1e-308", "nan", "inf", "-inf"),
    *("100000000000000000000", "18446744073709551616", "9223372036854775808", "0x10"),
    *("1000000000", "2147483648", "1.5", "007", "9" * 5000, "1_000", "-0.0", "+5"),
)
WORDS = (
    *(
        '""',
        "true",
        "[]",
        "{}",
        "[[]]",
        '"\\u202e\\u0000"',
        "'\N{SNOWMAN}'",
        "1979-05-27",
    ),
    *("[" * 2000 + "]" * 2000, '"' + "x" * 10_000 + '"', '"[red]:boom:"', "[1, 2, 3]"),
    *(
        '{ kind = "x" }',
        '["a", 1, true]',
        "07:32:00",
        '"../../etc/passwd"',
        '"\\u001b[31m"',
    ),
)
NAMES = (
    "study",
    "ranks",
    "nonsense",
    '"\N{SNOWMAN}"',
    "a.b.c",
    "kind",
    '""',
    "ranks.x",
)
TEXTS = (
    *(b"", b"\xff\xfe\x00", b"\xef\xbb\xbf{}", b"[]", b"3", b"null", b'"x"', b"{}"),
    *(b"\x00" * 64, b"[" * 20_000, b'{"a":' * 5_000, b"caf\xe9\n", b"\x1b[31mred\n"),
    *(b"9" * 5_000, b'{"study": 1}', "\N{SNOWMAN}".encode("utf-16"), b"1e999", b"NaN"),
)
"""What a file may hold instead."""


def text(random: Random, content: str) -> bytes:
    """Return a configuration with a few tokens changed, in some encoding."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        content = random.choice((_number, _word, _name, _line, _letter))(
            random, content
        )
    encoded = content.encode("utf-8", "surrogatepass")
    roll = random.random()
    if roll < 0.03:
        return content.encode("utf-16", "surrogatepass")
    if roll < 0.06:
        return b"\xef\xbb\xbf" + encoded
    if roll < 0.10:
        return encoded[: random.randrange(len(encoded) + 1)]
    return flipped(random, encoded, 3) if roll < 0.14 and encoded else encoded


def _instead(random: Random, pattern: str, content: str, new: str) -> str:
    found = list(re.finditer(pattern, content))
    if not found:
        return content + "\n" + new
    one = random.choice(found)
    return content[: one.start()] + new + content[one.end() :]


def _number(random: Random, content: str) -> str:
    return _instead(random, r"(?<![\w.])-?\d[\d_.]*", content, random.choice(NUMBERS))


def _word(random: Random, content: str) -> str:
    pattern = r'"[^"\n]*"|(?<== )[^\n]+'
    return _instead(random, pattern, content, random.choice((*WORDS, *NUMBERS)))


def _name(random: Random, content: str) -> str:
    return _instead(random, r"(?m)^\w[\w.]*(?= =)", content, random.choice(NAMES))


def _line(random: Random, content: str) -> str:
    lines = content.split("\n")
    at = random.randrange(len(lines))
    if random.random() < 0.5:
        del lines[at]
    else:
        lines.insert(at, random.choice(lines))
    return "\n".join(lines)


def _letter(random: Random, content: str) -> str:
    at = random.randrange(len(content) + 1)
    return (
        content[:at] + random.choice('\t\x00"[]={}#\\\u202e\N{SNOWMAN},') + content[at:]
    )


def flipped(random: Random, content: bytes, most: int) -> bytes:
    """Return bytes with up to `most` of their bits flipped, half of them in front."""
    changed = bytearray(content)
    for _ in range(random.randint(1, most)):
        end = len(changed) if random.random() < 0.5 else min(len(changed), 4096)
        changed[random.randrange(end)] ^= 1 << random.randrange(8)
    return bytes(changed)


def flip(random: Random, path: Path) -> None:
    """Flip bits of a file."""
    content = path.read_bytes()
    path.write_bytes(flipped(random, content, 30) if content else b"\x00")


def cut(random: Random, path: Path) -> None:
    """Cut off the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content) + 1)])


def replace(random: Random, path: Path) -> None:
    """Let something else lie in the place of a file."""
    path.unlink()
    what = random.randrange(8)
    if what == 0:
        os.mkfifo(path)
    elif what == 1:
        path.mkdir()
    elif what == 2:
        path.symlink_to(path.name)
    elif what == 3:
        path.symlink_to("/dev/zero")
    elif what == 4:
        path.symlink_to("nowhere")
    elif what < 7:
        path.write_bytes(random.choice(TEXTS))


def swap(random: Random, path: Path) -> None:
    """Exchange two files of the same name, or of any names, in a study."""
    others = sorted(p for p in path.parent.parent.glob("*/*") if p.is_file())
    same = [p for p in others if p.name == path.name and p != path]
    other = random.choice(same if same and random.random() < 0.6 else others)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def edit(random: Random, path: Path) -> None:
    """Change values, shapes or attributes of an HDF5 file, as its library does."""
    with h5py.File(path, "r+") as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset)]
        name = random.choice(names or ["nothing"])
        roll = random.random()
        if roll < 0.5 and names and file[name].size and file[name].ndim:
            at = tuple(random.randrange(length) for length in file[name].shape)
            extremes = (-1, 0, 1e9, 1e18, -1e300, np.nan, np.inf, 0.5)
            value = random.choice(extremes)
            if file[name].dtype.kind == "f" or -1e18 <= value <= 1e18:
                file[name][at] = value
        elif roll < 0.7:
            del file[name]
            if random.random() < 0.7:
                shape = random.choice(((3,), (2, 3), (), (10**9, 10**6), (0, 0)))
                file.create_dataset(
                    name, shape, np.float64, chunks=len(shape) > 1 or None
                )
        else:
            other = random.choice(sorted(file.attrs) or ["nothing"])
            file.attrs[other] = random.choice(
                ("", "[]", "{}", 3, -1, 1e300, "\N{SNOWMAN}")
            )


HDF5 = (flip, flip, cut, replace, swap, edit, edit)
OTHERS = (flip, cut, replace, replace, swap)


def damage(random: Random, path: Path) -> None:
    """Damage one file in some way."""
    ways = HDF5 if path.suffix == ".h5" else OTHERS
    way = random.choice(ways)
    try:
        way(random, path)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError):
        path.write_bytes(b"damaged twice")  # nothing to change any more in that way
