#!/usr/bin/env python3
"""python-binary-memcached against a server on 127.0.0.1: with_bmemcached.py PORT [USER PASSWORD].

With a user, the server asks for one: in the binary protocol (-S) and in text (-Y).
"""

import socket
import sys
import time

import bmemcached
import house
from bmemcached.exceptions import MemcachedException
from house import raises, same


def connect(port, user=None, password=None):
    user, password = (user, password) if user else (house.credentials() or (None, None))
    return bmemcached.Client([f"127.0.0.1:{port}"], user, password, socket_timeout=10)


def test_set_get_delete(port):
    client = connect(port)
    same(client.get("k"), None)
    same(client.set("k", "value"), True)
    same(client.get("k"), "value")
    same(client.delete("k"), True)
    same(client.get("k"), None)
    for value in ["text", b"bytes", 17, {"a": [1, 2.5, None]}, "ü" * 100, ""]:
        same(client.set("k", value), True, value)
        same(client.get("k"), value)


def test_add_and_replace(port):
    client = connect(port)
    same(client.replace("k", "1"), False)
    same(client.add("k", "2"), True)
    same(client.add("k", "3"), False)
    same(client.replace("k", "4"), True)
    same(client.get("k"), "4")


def test_cas(port):
    client = connect(port)
    same(client.set("k", "1"), True)
    value, unique = client.gets("k")
    same(value, "1")
    same(client.cas("k", "2", unique + 1), False)
    same(client.cas("k", "2", unique), True)
    same(client.cas("k", "3", unique), False)
    same(client.get("k"), "2")
    same(client.delete("k", cas=unique), False)
    _, unique = client.gets("k")
    same(client.delete("k", cas=unique), True)


def test_multi(port):
    client = connect(port)
    items = {f"multi:{number}": f"v{number}" for number in range(2000)}
    # These are the keys that were not stored.
    same(client.set_multi(items), [])
    same(client.get_multi(list(items) + ["none"]), items)
    same(client.delete_multi(list(items)), True)
    same(client.get_multi(list(items)), {})


def test_incr_and_decr(port):
    client = connect(port)
    same(client.incr("n", 1), 0)
    same(client.incr("n", 41), 41)
    same(client.decr("n", 50), 0)
    same(client.incr("n", 2**40), 2**40)


def test_expiry(port):
    client = connect(port)
    same(client.set("brief", "v", time=1), True)
    same(client.set("long", "v", time=100), True)
    time.sleep(2.1)
    same(client.get_multi(["brief", "long"]), {"long": "v"})


def test_large_values(port):
    client = connect(port)
    for size in [0, 1, 16_384, 65_536, 524_288, 1_048_000]:
        value = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        same(client.set(f"large:{size}", value, compress_level=0), True, size)
        same(client.get(f"large:{size}"), value, size)


def test_statistics(port):
    client = connect(port)
    (stats,) = client.stats().values()
    for figure in ["pid", "version", "curr_items", "cmd_set", "evictions", "threads", "auth_cmds"]:
        assert figure in stats, (figure, stats)
    (settings,) = client.stats("settings").values()
    assert "maxbytes" in settings, settings
    same(client.flush_all(), True)


def test_only_users_are_let_in(port):
    if not house.credentials():
        return
    user, password = house.credentials()
    stranger = connect(port, user, password + "!")
    raises(MemcachedException, lambda: stranger.set("k", "v"))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        # A get of a stranger: it is told, and that is the end.
        connection.sendall(b"\x80\0\0\x01\0\0\0\0\0\0\0\x01" + bytes(12) + b"k")
        reply = connection.makefile("rb").read()
    same((reply[:8], reply[24:]), (b"\x81\0\0\0\0\0\0\x20", b"Auth failure."))
    (stats,) = connect(port).stats().values()
    assert int(stats["auth_errors"]) >= 1 and int(stats["auth_cmds"]) >= 2, stats


if __name__ == "__main__":
    house.main(sys.modules[__name__])
