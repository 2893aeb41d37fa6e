"""A registry of its own for each program: a real `waypost serve` on loopback, at a free port.

Also the few messages of the protocol that programs without generated code send, and the checks.
Everything has a bound in time: a program that hangs is ended by an alarm, and fails.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

WAYPOST = os.environ.get("WAYPOST_PROGRAM", "target/debug/waypost")
PROGRAM_SECONDS_MAX = 90
COMMAND_SECONDS_MAX = 15
START_SECONDS_MAX = 20


class Failed(Exception):
    """A check that does not hold."""


def check(sentence, holds, detail=""):
    """Prints that a sentence holds, or fails with what was there instead."""
    if not holds:
        raise Failed(f"{sentence}\n{detail}")
    print(f"ok {sentence}", flush=True)


def main(program):
    """Runs a program in a folder of its own. Exits with 1 where a check fails or time is up."""

    def time_is_up(_signal, _frame):
        raise Failed(f"still running after {PROGRAM_SECONDS_MAX} s")

    signal.signal(signal.SIGALRM, time_is_up)
    signal.alarm(PROGRAM_SECONDS_MAX)
    try:
        with tempfile.TemporaryDirectory() as folder:
            program(pathlib.Path(folder))
    except Failed as failed:
        print(f"FAILED {failed}", flush=True)
        sys.exit(1)
    finally:
        signal.alarm(0)


def run(*command, seconds=COMMAND_SECONDS_MAX, **options):
    """Runs a command to its end. Returns its exit code and all that it printed."""
    words = [str(word) for word in command]
    try:
        ended = subprocess.run(
            words,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired as late:
        printed = (late.stdout or b"").decode(errors="replace")
        raise Failed(f"{words[0]} still running after {seconds} s\n{printed}") from late
    return ended.returncode, ended.stdout.decode(errors="replace")


def output(*command, **options):
    """Runs a command that must succeed. Returns what it printed."""
    code, printed = run(*command, **options)
    if code != 0:
        raise Failed(f"{' '.join(map(str, command))} exited with {code}\n{printed}")
    return printed


def waypost(*arguments):
    """Runs a command of Waypost that must succeed. Returns what it printed."""
    return output(WAYPOST, *arguments)


def authority(folder):
    """Makes an authority with a policy, as the first of the two commands does. Returns its folder."""
    pki = folder / "pki"
    waypost("ca", "init", "--dir", pki)
    return pki


@contextlib.contextmanager
def registry(folder, *arguments):
    """Runs a registry. Gives its address as `127.0.0.1:PORT`."""
    port_file, log = folder / "port", folder / "log"
    command = [WAYPOST, "serve", "--store", "memory", "--listen", "127.0.0.1:0"]
    command += ["--port-file", str(port_file), *map(str, arguments)]
    with open(log, "wb") as lines:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=lines, stderr=lines)
    try:
        wait_for("the registry", port_file.exists, START_SECONDS_MAX, lambda: log.read_text())
        yield port_file.read_text().strip()
    except Failed as failed:
        raise Failed(f"{failed}\nlog of the registry:\n{log.read_text()}") from failed
    finally:
        server.terminate()
        try:
            server.wait(COMMAND_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(what, holds, seconds, detail=lambda: ""):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"no {what} within {seconds} s\n{detail()}")
        time.sleep(0.02)


def replace(path, text):
    """Replaces a file whole, as a program does that rotates it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


def token(name):
    """Makes a static token. Returns its text and its entry of the policy."""
    made = json.loads(waypost("token", "new", name, "--output", "json"))
    return made["token"], made


def text(number, value):
    """A field with a text or a message, as bytes of Protocol Buffers. At most 127 bytes."""
    value = value.encode() if isinstance(value, str) else value
    assert number < 16 and len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def number(field, value):
    """A field with a number below 128, as bytes of Protocol Buffers."""
    assert field < 16 and value < 128
    return bytes([field << 3, value])


def register_request(service, instance):
    """A `RegisterRequest` for an instance of a service in the namespace `shop`."""
    fields = text(1, "shop") + text(2, service) + text(3, instance)
    return text(1, fields + text(4, "10.0.0.7") + number(5, 80)) + text(2, number(1, 60))


def deregister_request(service, instance):
    """A `DeregisterRequest` by identity."""
    return text(2, "shop") + text(3, service) + text(4, instance)


def resolve_request(service):
    """A `ResolveRequest`."""
    return text(1, "shop") + text(2, service)


def grpc_frame(message):
    """A message as gRPC sends it: not compressed, its length, its bytes."""
    return b"\0" + len(message).to_bytes(4, "big") + message
