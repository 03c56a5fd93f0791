#!/usr/bin/env python3
"""meta-memcache, which speaks meta commands only, against a server: with_meta_memcache.py PORT.

The server is on 127.0.0.1.
"""

import sys
import threading
import time
from random import Random

import house
from house import raises, same
from meta_memcache import (
    CacheClient,
    Conflict,
    Key,
    LeasePolicy,
    MemcacheError,
    Miss,
    NotStored,
    RecachePolicy,
    RequestFlags,
    ServerAddress,
    SetMode,
    StalePolicy,
    Success,
    Value,
    connection_pool_factory_builder,
)


def connect(port):
    # With its usual buffer of 4 KiB it takes half a minute to read a megabyte, whatever the server.
    pool = connection_pool_factory_builder(
        max_pool_size=8, connection_timeout=10, recv_timeout=10, read_buffer_size=1 << 20
    )
    servers = [ServerAddress(host="127.0.0.1", port=port)]
    return CacheClient.cache_client_from_servers(servers=servers, connection_pool_factory_fn=pool)


def test_set_get_delete(port):
    client = connect(port)
    same(client.get("k"), None)
    same(client.set("k", "value", ttl=100), True)
    same(client.get("k"), "value")
    same(client.delete("k"), True)
    same(client.delete("k"), False)
    same(client.invalidate("k"), True)
    same(client.get("k"), None)


def test_types_are_flags(port):
    client = connect(port)
    for value in ["text", b"bytes", 17, {"a": [1, 2.5, None]}, "ü" * 100, "compressible " * 9000]:
        same(client.set("k", value, ttl=100), True)
        got = client.get("k")
        same((type(got), got), (type(value), value))


def test_keys_of_any_kind(port):
    client = connect(port)
    keys = ["plain", "with space", "\n", "🍺" * 20, "k" * 250, "k" * 251, "k" * 5000]
    for number, key in enumerate(keys):
        same(client.set(key, number, ttl=100), True, key)
    for number, key in enumerate(keys):
        same(client.get(key), number, key)
    same(client.multi_get(keys), {Key(key): number for number, key in enumerate(keys)})


def test_modes(port):
    client = connect(port)
    for mode in [SetMode.REPLACE, SetMode.APPEND, SetMode.PREPEND]:
        same(client.set("k", b"1", ttl=100, set_mode=mode), False, mode)
    same(client.set("k", b"2", ttl=100, set_mode=SetMode.ADD), True)
    same(client.set("k", b"3", ttl=100, set_mode=SetMode.ADD), False)
    same(client.refill("k", b"3", ttl=100), False)
    same(client.set("k", b"4", ttl=100, set_mode=SetMode.REPLACE), True)
    same(client.set("k", b"end", ttl=100, set_mode=SetMode.APPEND), True)
    same(client.set("k", b"start", ttl=100, set_mode=SetMode.PREPEND), True)
    same(client.get("k"), b"start4end")


def test_many_at_once(port):
    client = connect(port)
    items = {f"many:{number}": f"value {number}" for number in range(1000)}
    for key, value in items.items():
        same(client.set(key, value, ttl=100), True)
    got = client.multi_get([*items, "none"])
    same(got, {**{Key(key): value for key, value in items.items()}, Key("none"): None})
    for key, (value, cas) in client.multi_get_cas(items).items():
        same((value, cas > 0), (items[key.key], True))


def test_quiet_requests(port):
    client = connect(port)
    for number in range(100):
        same(client.set(f"quiet:{number}", number, ttl=100, no_reply=True), True)
    same(client.delete("quiet:7", no_reply=True), True)
    same(client.delta("quiet:8", 5, no_reply=True), True)
    same(client.touch("quiet:9", 100, no_reply=True), True)
    got = client.multi_get([f"quiet:{number}" for number in range(100)])
    numbers = {number: number for number in range(100)} | {7: None, 8: 13}
    same(got, {Key(f"quiet:{number}"): value for number, value in numbers.items()})


def test_cas(port):
    client = connect(port)
    same(client.get_cas("k"), (None, None))
    first = client.set_cas("k", "1", ttl=100)
    same(client.get_cas("k"), ("1", first))
    second = client.set_cas("k", "2", ttl=100, cas_token=first)
    assert second != first
    same(client.set_cas("k", "3", ttl=100, cas_token=first), None)
    same(client.set("k", "3", ttl=100, cas_token=first), False)
    same(client.get_cas("k"), ("2", second))
    same(client.delete("k", cas_token=first), False)
    same(client.delete("k", cas_token=second), True)
    same(client.set("k", "4", ttl=100, cas_token=second), False)


def test_stale_on_deletion(port):
    client = connect(port)
    policy = StalePolicy(mark_stale_on_deletion_ttl=100)
    client.set("k", "old", ttl=1000)
    same(client.delete("k", stale_policy=policy), True)
    # The first who asks is to fetch it anew, the others have the old value meanwhile.
    value, cas = client.get_cas("k")
    same(value, None)
    same(client.get("k"), "old")
    same(client.set("k", "new", ttl=1000, cas_token=cas), True)
    same([client.get("k"), client.get("k")], ["new", "new"])


def test_stale_on_a_cas_that_is_over(port):
    client = connect(port)
    policy = StalePolicy(mark_stale_on_cas_mismatch=True)
    client.set("k", "1", ttl=1000)
    _, before = client.get_cas("k")
    client.delete("k", stale_policy=StalePolicy(mark_stale_on_deletion_ttl=100))
    same(client.set("k", "2", ttl=1000, cas_token=before, stale_policy=policy), True)
    same(client.get("k"), None, "whoever wins")
    same(client.get("k"), "2", "whoever does not")


def test_recache(port):
    client = connect(port)
    client.set("k", "v", ttl=20)
    same(client.get("k", recache_policy=RecachePolicy(ttl=5)), "v")
    same(client.get("k", recache_policy=RecachePolicy(ttl=30)), None, "whoever wins")
    same(client.get("k", recache_policy=RecachePolicy(ttl=30)), "v", "whoever does not")


def test_lease(port):
    client = connect(port)
    policy = LeasePolicy(ttl=30, miss_retries=40, miss_retry_wait=0.05)
    value, cas = client.get_or_lease_cas("k", policy)
    same(value, None)
    waited = []
    waiter = threading.Thread(target=lambda: waited.append(client.get_or_lease("k", policy)))
    waiter.start()
    time.sleep(0.2)
    same(waited, [])
    same(client.set("k", "fetched", ttl=100, cas_token=cas), True)
    waiter.join()
    same(waited, ["fetched"])


def test_arithmetic(port):
    client = connect(port)
    same(client.delta("n", 1), False)
    same(client.delta_and_get("n", 1), None)
    same(client.delta_initialize("n", 1, initial_value=10, initial_ttl=100), True)
    same(client.delta_and_get("n", 5), 15)
    same(client.delta_and_get("n", -20), 0)
    same(client.delta_initialize_and_get("n", 7, initial_value=10, initial_ttl=100), 7)
    _, cas = client.get_cas("n")
    same(client.delta_and_get("n", 1, cas_token=cas), 8)
    same(client.delta_and_get("n", 1, cas_token=cas), None)
    same(client.delta("n", 2**64 - 8), True)
    same(int(client.get("n")), 0)
    client.set("w", "word", ttl=100)
    raises(MemcacheError, lambda: client.delta("w", 1))
    same(client.get("w"), "word")


def test_expiry_and_touch(port):
    client = connect(port)
    for key in ["brief", "touched", "got"]:
        same(client.set(key, "v", ttl=1), True)
    same(client.touch("touched", ttl=100), True)
    same(client.touch("none", ttl=100), False)
    same(client.get("got", touch_ttl=100), "v")
    time.sleep(2.1)
    got = client.multi_get(["brief", "touched", "got"])
    same(got, {Key("brief"): None, Key("touched"): "v", Key("got"): "v"})


def test_what_a_reply_tells(port):
    client = connect(port)
    client.set("k", "value", ttl=100)
    asked = RequestFlags(
        return_value=True, return_ttl=True, return_size=True, return_cas_token=True,
        return_last_access=True, return_fetched=True, return_client_flag=True, opaque=b"opaque",
    )
    first, second = client.meta_get(Key("k"), asked), client.meta_get(Key("k"), asked)
    same((type(first), first.value, first.size), (Value, "value", 5))
    same((first.flags.fetched, second.flags.fetched), (False, True))
    assert 90 <= first.flags.ttl <= 100, first
    same((first.flags.size, first.flags.opaque), (5, b"opaque"))
    assert first.flags.last_access < 10, first
    client.set("stays", "v", ttl=None)
    same(client.meta_get(Key("stays"), asked).flags.ttl, -1)


def test_outcomes(port):
    client = connect(port)
    asked = RequestFlags(opaque=b"7", cache_ttl=100)
    stored = client.meta_set(Key("k"), b"v", asked)
    same((type(stored), stored.flags.opaque), (Success, b"7"))
    same(type(client.meta_get(Key("none"), asked)), Miss)
    same(type(client.meta_delete(Key("none"), RequestFlags())), Miss)
    same(type(client.meta_set(Key("k"), b"v", RequestFlags(cas_token=1 << 30))), Conflict)
    added = RequestFlags(mode=SetMode.ADD.value)
    same(type(client.meta_set(Key("k"), b"v", added)), NotStored)


def test_large_values(port):
    client = connect(port)
    # The client compresses what is not random.
    random = Random(7)
    for size in [0, 1, 4095, 4096, 65_536, 1_000_000]:
        value = random.randbytes(size)
        same(client.set("k", value, ttl=100), True, size)
        same(client.get("k"), value, size)
    raises(MemcacheError, lambda: client.set("too_large", random.randbytes(2_000_000), ttl=100))
    same(client.set("k", "v", ttl=100), True)


def test_threads(port):
    client = connect(port)
    failures = []

    def work(name):
        try:
            for number in range(200):
                client.set(f"{name}:{number}", number, ttl=100)
                same(client.get(f"{name}:{number}"), number)
                client.delta_initialize("all", 1, initial_value=1, initial_ttl=100)
        except Exception as error:  # Handed to the thread that judges.
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(failures, [])
    same(int(client.get("all")), 8 * 200)


if __name__ == "__main__":
    house.main(sys.modules[__name__])
