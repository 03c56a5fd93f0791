#!/usr/bin/env python3
"""pymemcache against a server on 127.0.0.1: with_pymemcache.py PORT."""

import sys
import threading
import time

import house
from house import raises, same
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
)


def connect(port, **options):
    return Client(("127.0.0.1", port), connect_timeout=10, timeout=20, **options)


def test_set_get_delete(port):
    client = connect(port)
    same(client.get("k"), None)
    same(client.set("k", b"value", noreply=False), True)
    same(client.get("k"), b"value")
    same(client.get("none", "default"), "default")
    same(client.delete("k", noreply=False), True)
    same(client.delete("k", noreply=False), False)
    same(client.get("k"), None)


def test_add_and_replace(port):
    client = connect(port)
    same(client.replace("k", b"1", noreply=False), False)
    same(client.add("k", b"2", noreply=False), True)
    same(client.add("k", b"3", noreply=False), False)
    same(client.replace("k", b"4", noreply=False), True)
    same(client.get("k"), b"4")


def test_append_and_prepend(port):
    client = connect(port)
    same(client.append("k", b"x", noreply=False), False)
    same(client.prepend("k", b"x", noreply=False), False)
    client.set("k", b"m", noreply=False)
    same(client.append("k", b"end", noreply=False), True)
    same(client.prepend("k", b"start", noreply=False), True)
    same(client.get("k"), b"startmend")


def test_many(port):
    client = connect(port)
    items = {f"many:{number}": b"v%d" % number for number in range(2000)}
    same(client.set_many(items, noreply=False), [])
    same(client.get_many(list(items) + ["none"]), items)
    values = client.gets_many(list(items))
    same({key: value for key, (value, _) in values.items()}, items)
    # Each unique tells the versions of its own item apart.
    client.set_many(items, noreply=False)
    later = client.gets_many(list(items))
    same([key for key in items if later[key][1] == values[key][1]], [], "kept their cas unique")
    same(client.delete_many(list(items), noreply=False), True)
    same(client.get_many(list(items)), {})


def test_cas(port):
    client = connect(port)
    same(client.cas("k", b"x", b"1", noreply=False), None)
    client.set("k", b"1", noreply=False)
    value, unique = client.gets("k")
    same(value, b"1")
    same(client.cas("k", b"2", unique, noreply=False), True)
    same(client.cas("k", b"3", unique, noreply=False), False)
    same(client.get("k"), b"2")


def test_incr_and_decr(port):
    client = connect(port)
    same(client.incr("n", 1, noreply=False), None)
    client.set("n", b"10", noreply=False)
    same(client.incr("n", 5, noreply=False), 15)
    same(client.decr("n", 6, noreply=False), 9)
    same(client.decr("n", 100, noreply=False), 0)
    client.set("n", b"18446744073709551615", noreply=False)
    same(client.incr("n", 2, noreply=False), 1)
    client.set("n", b"word", noreply=False)
    error = raises(MemcacheClientError, lambda: client.incr("n", 1, noreply=False))
    assert "non-numeric" in str(error), error
    same(client.get("n"), b"word")


def test_touch_and_gat(port):
    client = connect(port)
    same(client.touch("k", 10, noreply=False), False)
    client.set("k", b"v", expire=1, noreply=False)
    same(client.touch("k", 100, noreply=False), True)
    client.set("g", b"w", expire=1, noreply=False)
    # This client has no words for these two commands.
    got = client.raw_command(b"gat 100 g none", end_tokens=b"END\r\n")
    same(got, b"VALUE g 0 1\r\nw\r\n")
    got = client.raw_command(b"gats 100 g", end_tokens=b"END\r\n")
    assert got.startswith(b"VALUE g 0 1 ") and got.endswith(b"\r\nw\r\n"), got
    client.set("gone", b"x", expire=1, noreply=False)
    time.sleep(2.1)
    same(client.get("k"), b"v", "touched")
    same(client.get("g"), b"w", "got and touched")
    same(client.get("gone"), None, "expired")


def test_expiry(port):
    client = connect(port)
    client.set("relative", b"v", expire=1, noreply=False)
    client.set("absolute", b"v", expire=int(time.time()) + 2, noreply=False)
    client.set("past", b"v", expire=int(time.time()) - 10, noreply=False)
    client.set("negative", b"v", expire=-1, noreply=False)
    client.set("never", b"v", expire=0, noreply=False)
    same(client.get("past"), None)
    same(client.get("negative"), None)
    same(client.get("absolute"), b"v")
    time.sleep(3.1)
    same(client.get_many(["relative", "absolute", "never"]), {"never": b"v"})


def test_large_values(port):
    client = connect(port)
    for size in [0, 1, 1000, 1024, 16_384, 65_535, 65_536, 524_288, 1_048_000]:
        value = bytes(number % 251 for number in range(1000)) * (size // 1000 + 1)
        value = value[:size]
        same(client.set(f"large:{size}", value, noreply=False), True, size)
        same(client.get(f"large:{size}"), value, size)
    error = raises(
        MemcacheServerError, lambda: client.set("large:1", b"x" * 1_100_000, noreply=False)
    )
    assert "too large" in str(error), error
    # The connection is in step, and the old value must not stand for the refused one.
    same(client.get("large:1"), None)
    same(client.set("large:1", b"x", noreply=False), True)


def test_noreply(port):
    client = connect(port)
    for number in range(1000):
        client.set("k", b"%d" % number, noreply=True)
    same(client.get("k"), b"999")
    client.append("k", b"!", noreply=True)
    client.delete("none", noreply=True)
    client.add("k", b"no", noreply=True)
    client.incr("none", 1, noreply=True)
    client.touch("k", 100, noreply=True)
    same(client.get("k"), b"999!")
    client.delete("k", noreply=True)
    client.flush_all(noreply=True)
    same(client.get("k"), None)


def test_flush(port):
    client = connect(port)
    client.set_many({"a": b"1", "b": b"2"}, noreply=False)
    same(client.flush_all(noreply=False), True)
    same(client.get_many(["a", "b"]), {})
    client.set("a", b"3", noreply=False)
    same(client.get("a"), b"3")
    same(client.flush_all(delay=2, noreply=False), True)
    same(client.get("a"), b"3")
    time.sleep(3.1)
    same(client.get("a"), None)


def test_keys_and_flags(port):
    client = connect(port, allow_unicode_keys=True)
    for key in ["k", "x" * 250, "ключ", "a:b/c?d=e&f", "\x7f"]:
        same(client.set(key, key.encode(), noreply=False), True, key)
        same(client.get(key), key.encode(), key)
    raises(MemcacheIllegalInputError, lambda: client.get("x" * 251))
    for flags in [0, 1, 65_535, 2**32 - 1]:
        client.set("f", b"v", noreply=False, flags=flags)
        deserialized = connect(port, deserializer=lambda key, value, flags: flags).get("f")
        same(deserialized, flags)


def test_version_stats_and_quit(port):
    client = connect(port)
    assert client.version(), "no version"
    stats = client.stats()
    for name in [b"pid", b"uptime", b"curr_items", b"cmd_get", b"get_hits", b"limit_maxbytes"]:
        assert name in stats, name
    hits = stats[b"get_hits"]
    client.set("k", b"v", noreply=False)
    client.get("k")
    same(client.stats()[b"get_hits"], hits + 1)
    assert client.stats("settings"), "no settings"
    client.quit()
    same(connect(port).get("k"), b"v")


def test_hash_client_and_pool(port):
    for client in [
        HashClient([("127.0.0.1", port)], use_pooling=True, timeout=20),
        PooledClient(("127.0.0.1", port), max_pool_size=8, timeout=20),
    ]:
        failures = []

        def work(name, client=client, failures=failures):
            try:
                for number in range(100):
                    client.set(f"{name}:{number}", b"%d" % number, noreply=False)
                    same(client.get(f"{name}:{number}"), b"%d" % number)
            except Exception as error:  # Handed to the thread that judges.
                failures.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same(failures, [])


if __name__ == "__main__":
    house.main(sys.modules[__name__])
