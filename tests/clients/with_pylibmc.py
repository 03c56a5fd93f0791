#!/usr/bin/env python3
"""pylibmc, which is libmemcached, against two servers: with_pylibmc.py PORT OTHER [binary].

The servers are on 127.0.0.1; most tests are of the first alone. Without the third word, text is
spoken.
"""

import sys
import threading
import time

import house
import pylibmc
from house import raises, same


OTHER = int(sys.argv[2])
BINARY = sys.argv[3:] == ["binary"]


def connect(*ports, **behaviors):
    behaviors = {"tcp_nodelay": True, "cas": True, **behaviors}
    servers = [f"127.0.0.1:{port}" for port in ports]
    return pylibmc.Client(servers, binary=BINARY, behaviors=behaviors)


def test_set_get_delete(port):
    client = connect(port)
    same(client.get("k"), None)
    same(client.set("k", "value"), True)
    same(client.get("k"), "value")
    same("k" in client, True)
    same(client.delete("k"), True)
    same(client.delete("k"), False)
    same("k" in client, False)


def test_types_are_flags(port):
    client = connect(port)
    for value in ["text", b"bytes", 17, -3, {"a": [1, 2.5, None]}, "ü" * 100]:
        same(client.set("k", value), True, value)
        got = client.get("k")
        same((type(got), got), (type(value), value))


def test_add_replace_append_prepend(port):
    client = connect(port)
    if BINARY:
        # That is how the client tells what the protocol has another word for.
        raises(pylibmc.NotFound, lambda: client.replace("k", b"1"))
    else:
        same(client.replace("k", b"1"), False)
    same(client.add("k", b"2"), True)
    same(client.add("k", b"3"), False)
    same(client.replace("k", b"4"), True)
    same(client.append("k", b"end"), True)
    same(client.prepend("k", b"start"), True)
    same(client.get("k"), b"start4end")
    same(client.append("none", b"x"), False)


def test_multi(port):
    client = connect(port)
    items = {f"multi:{number}": "v%d" % number for number in range(2000)}
    same(client.set_multi(items), [])
    same(client.get_multi(list(items) + ["none"]), items)
    same(client.get_multi([str(n) for n in range(3)], key_prefix="multi:"), {
        str(n): f"v{n}" for n in range(3)
    })
    same(client.delete_multi(list(items)), True)
    same(client.get_multi(list(items)), {})


def test_sets_without_reply(port):
    client = connect(port, _noreply=True)
    items = {f"quiet:{number}": "v%d" % number for number in range(500)}
    for key, value in items.items():
        client.set(key, value)
    same(client.get_multi(list(items)), items)
    same(connect(port).get("quiet:499"), "v499")


def test_cas(port):
    client = connect(port)
    client.set("k", "1")
    value, unique = client.gets("k")
    same(value, "1")
    same(client.cas("k", "2", unique), True)
    same(client.cas("k", "3", unique), False)
    same(client.get("k"), "2")
    raises(pylibmc.NotFound, lambda: client.cas("none", "1", unique))


def test_incr_and_decr(port):
    client = connect(port)
    client.set("n", 10)
    same(client.incr("n"), 11)
    same(client.incr("n", 9), 20)
    same(client.decr("n", 5), 15)
    same(client.decr("n", 50), 0)
    raises(pylibmc.NotFound, lambda: client.incr("none"))
    client.set("w", "word")
    raises(pylibmc.Error, lambda: client.incr("w"))
    # In the binary protocol the client takes the error for the death of the server.
    same(connect(port).get("w"), "word")


def test_touch_and_expiry(port):
    client = connect(port)
    client.set("brief", "v", time=1)
    client.set("touched", "v", time=1)
    client.set("absolute", "v", time=int(time.time()) + 2)
    same(client.get("brief"), "v")
    # In binary, libmemcached waits for more after a touch that hits, for longer than a second.
    same(client.touch("touched", 100), True)
    same(client.touch("none", 100), False)
    time.sleep(3.1)
    same(client.get_multi(["brief", "touched", "absolute"]), {"touched": "v"})


def test_large_values(port):
    client = connect(port)
    for size in [0, 1, 1024, 16_384, 65_536, 524_288, 1_048_000]:
        value = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        same(client.set(f"large:{size}", value), True, size)
        same(client.get(f"large:{size}"), value, size)
    raises(pylibmc.Error, lambda: client.set("too_large", b"x" * 1_100_000))
    same(connect(port).set("k", "v"), True)


def test_compression(port):
    client = connect(port)
    value = "compressible " * 10_000
    same(client.set("k", value, min_compress_len=1000), True)
    same(client.get("k"), value)


def test_flush_and_stats(port):
    client = connect(port)
    client.set_multi({"a": "1", "b": "2"})
    same(client.flush_all(), True)
    same(client.get_multi(["a", "b"]), {})
    ((name, stats),) = client.get_stats()
    assert f":{port}".encode() in name, name
    for figure in [b"pid", b"version", b"curr_items", b"cmd_set", b"evictions", b"threads"]:
        assert figure in stats or figure.decode() in stats, (figure, stats)


def test_ketama_over_two_servers(port):
    house.flush(OTHER)
    both = connect(port, OTHER, ketama=True)
    items = {f"ketama:{number}": "v%d" % number for number in range(1000)}
    same(both.set_multi(items), [])
    same(both.get_multi(list(items) + ["none"]), items)
    # Each key is at one of them, and each of them has its part.
    parts = [connect(each).get_multi(list(items)) for each in [port, OTHER]]
    same({**parts[0], **parts[1]}, items)
    same(len(parts[0]) + len(parts[1]), len(items))
    assert min(map(len, parts)) > len(items) // 10, list(map(len, parts))
    # Where a key is depends on no order.
    same(connect(OTHER, port, ketama=True).get_multi(list(items)), items)
    for part in parts:
        key, value = next(iter(part.items()))
        _, unique = both.gets(key)
        same(both.cas(key, value + "!", unique), True)
        same(both.cas(key, "late", unique), False)
        same(both.get(key), value + "!")
        same(both.append(key, "!"), True)
    same(both.delete_multi(list(items)), True)
    same([connect(each).get_multi(list(items)) for each in [port, OTHER]], [{}, {}])


def test_weighted_ketama(port):
    house.flush(OTHER)
    both = connect(port, OTHER, ketama_weighted=True, hash="md5")
    numbers = {f"weighted:{number}": number for number in range(500)}
    for key, number in numbers.items():
        same(both.add(key, number), True)
        same(both.incr(key), number + 1)
    counts = [len(connect(each).get_multi(list(numbers))) for each in [port, OTHER]]
    same(sum(counts), len(numbers))
    assert min(counts) > len(numbers) // 10, counts


def test_threads_with_a_pool(port):
    pool = pylibmc.ClientPool(connect(port), 4)
    failures = []

    def work(name):
        try:
            for number in range(100):
                with pool.reserve(block=True) as client:
                    client.set(f"{name}:{number}", number)
                    same(client.get(f"{name}:{number}"), number)
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
