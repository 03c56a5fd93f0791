"""What the tests with real clients share: finding the tests of a module, running and counting.

A test is a function `test_*(port)`. It starts from an empty cache and fails by an exception.
"""

import socket
import sys
import traceback


def credentials():
    """The name and the password in the arguments after the port, if there are any."""
    return tuple(sys.argv[2:4]) if len(sys.argv) > 3 else None


def flush(port):
    """Empties the cache without the client that is under test."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        lines = connection.makefile("rb")
        if credentials():
            token = " ".join(credentials()).encode()
            connection.sendall(b"set auth 0 0 %d\r\n%s\r\n" % (len(token), token))
            same(lines.readline(), b"STORED\r\n")
        connection.sendall(b"flush_all\r\n")
        same(lines.readline(), b"OK\r\n")


def raises(kind, work):
    """The error of this kind that the work must end with."""
    try:
        result = work()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} but {result!r}")


def same(got, wanted, what=""):
    """Fails with both values, shortened, where they differ."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.200}, wanted {wanted!r:.200}")


def main(module):
    """Runs the tests of a module against the port in the first argument."""
    port = int(sys.argv[1])
    tests = [(name, test) for name, test in vars(module).items() if name.startswith("test_")]
    failed = 0
    for name, test in tests:
        try:
            flush(port)
            test(port)
        except Exception:  # Whatever it is, the other tests should run.
            failed += 1
            print(f"{module.__file__}: {name} failed")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not tests else 0)
