#!/usr/bin/env python3
"""Miss ratios of well-known eviction policies on a file of requests, by libcachesim.

usage: judge.py FILE POLICY:BYTES...

`ringcached-bench replay --judge PYTHON` runs this, with a PYTHON that has libcachesim:

    python3 -m venv judge && judge/bin/pip install libcachesim==0.3.5

FILE holds 24-byte records (u32 time, u64 key, u32 bytes, i64 next request for the key). For each
policy and size of a cache prints one line: policy, size, object and byte miss ratio.
"""
import sys

import libcachesim as cs

POLICIES = {
    "LRU": cs.LRU,
    # The published algorithm; by default libcachesim wants two hits before it promotes.
    "S3-FIFO": lambda size: cs.S3FIFO(size, move_to_main_threshold=1),
    "SIEVE": cs.Sieve,
    "W-TinyLFU": cs.WTinyLFU,
    "LHD": cs.LHD,
    "GDSF": cs.GDSF,
}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    for argument in sys.argv[2:]:
        name, size = argument.split(":")
        reader = cs.TraceReader(sys.argv[1], cs.TraceType.ORACLE_GENERAL_TRACE)
        objects, in_bytes = POLICIES[name](int(size)).process_trace(reader)
        print(name, size, f"{objects:.5f}", f"{in_bytes:.5f}", flush=True)


if __name__ == "__main__":
    main()
