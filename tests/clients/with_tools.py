#!/usr/bin/env python3
"""The tools of libmemcached against a server: with_tools.py PORT [binary].

The server is on 127.0.0.1. Without the second word, text is spoken; memcping and memcdump know no
other way.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import house
from house import same


BINARY = ["--binary"] if sys.argv[2:] == ["binary"] else []


def run(tool, port, *arguments):
    """The exit code of a tool and what it prints."""
    command = [tool, f"--servers=127.0.0.1:{port}", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60)
    return done.returncode, done.stdout


def says(port, *command):
    """What a tool prints that must succeed."""
    tool, *arguments = command
    code, printed = run(tool, port, *arguments)
    same(code, 0, command)
    return printed


def fails(port, *command):
    """A tool must end with 1, and print nothing."""
    tool, *arguments = command
    same(run(tool, port, *arguments), (1, b""), command)


def put(port, values, *options):
    """Stores values under keys by memccp, which takes files. Its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, key) for key in values]
        for file, value in zip(files, values.values()):
            file.write_bytes(value)
        code, printed = run("memccp", port, *BINARY, *options, *map(str, files))
    same(printed, b"")
    return code


def keys(port):
    """All keys, sorted; each must be listed once."""
    listed = says(port, "memcdump").decode().splitlines()
    same(len(set(listed)), len(listed))
    return sorted(listed)


def test_ping(port):
    same(says(port, "memcping"), b"")
    fails(1, "memcping")


def test_put_and_show(port):
    same(put(port, {"a": b"one", "b": b"two\r\nEND\r\n"}), 0)
    same(says(port, "memccat", *BINARY, "a"), b"one\n")
    same(says(port, "memccat", *BINARY, "b"), b"two\r\nEND\r\n\n")
    same(says(port, "memccat", *BINARY, "a", "b"), b"one\ntwo\r\nEND\r\n\n")
    fails(port, "memccat", *BINARY, "none")


def test_ways_to_put(port):
    same(put(port, {"a": b"1"}, "--replace"), 1)
    same(put(port, {"a": b"2"}, "--add"), 0)
    same(put(port, {"a": b"3"}, "--add"), 1)
    same(says(port, "memccat", *BINARY, "a"), b"2\n")
    same(put(port, {"a": b"4"}, "--replace"), 0)
    same(says(port, "memccat", *BINARY, "a"), b"4\n")
    same(put(port, {"a": b"5"}, "--set", "--flags=77"), 0)
    same(says(port, "memccat", *BINARY, "--flags", "a"), b"77\n5\n")


def test_large_values(port):
    value = b"0123456789abcdef" * 60_000
    same(put(port, {"large": value}), 0)
    same(says(port, "memccat", *BINARY, "large"), value + b"\n")
    same(put(port, {"too_large": value + value}), 1)
    same(keys(port), ["large"])


def test_exist(port):
    same(put(port, {"a": b""}), 0)
    same(says(port, "memcexist", *BINARY, "a"), b"")
    fails(port, "memcexist", *BINARY, "none")


def test_remove(port):
    same(put(port, {"a": b"1", "b": b"2", "c": b"3"}), 0)
    same(says(port, "memcrm", *BINARY, "a", "c"), b"")
    same(keys(port), ["b"])
    fails(port, "memcrm", *BINARY, "a")


def test_touch_and_expiry(port):
    same(put(port, {"brief": b"1", "touched": b"2"}, "--expire=3"), 0)
    same(put(port, {"stays": b"3"}, "--expire=1000"), 0)
    same(says(port, "memctouch", *BINARY, "--expire=1000", "touched"), b"")
    fails(port, "memctouch", *BINARY, "--expire=1000", "none")
    time.sleep(4.1)
    fails(port, "memcexist", *BINARY, "brief")
    same(keys(port), ["stays", "touched"])


def test_dump(port):
    same(keys(port), [])
    values = {f"key:{size}:{number}": b"v" * size for size in [0, 9, 300, 20_000, 200_000]
              for number in range(40)}
    same(put(port, values), 0)
    same(keys(port), sorted(values))


def test_flush(port):
    same(put(port, {"a": b"1", "b": b"2"}), 0)
    same(says(port, "memcflush", *BINARY), b"")
    same(keys(port), [])
    fails(port, "memcexist", *BINARY, "a")


def test_statistics(port):
    def shown():
        rows = says(port, "memcstat", *BINARY).decode().splitlines()
        same(rows[0], f"Server: 127.0.0.1 ({port})")
        return dict(row.strip().split(": ", 1) for row in rows[1:] if row)

    before = int(shown()["total_items"])
    same(put(port, {"a": b"1", "b": b"2"}), 0)
    figures = shown()
    same(int(figures["total_items"]), before + 2)
    for figure in ["pid", "version", "cmd_set", "evictions", "threads", "bytes"]:
        assert figure in figures, (figure, figures)
    settings = says(port, "memcstat", *BINARY, "settings")
    assert b"\tmaxbytes: " in settings, settings


def test_version(port):
    said = subprocess.run(
        ["memcstat", f"--servers=127.0.0.1:{port}", "--server-version"],
        capture_output=True, timeout=60,
    )
    same(said.returncode, 0)
    assert b"1.6." in said.stdout + said.stderr, said


if __name__ == "__main__":
    house.main(sys.modules[__name__])
