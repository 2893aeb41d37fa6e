"""Python's grpcio over TLS, with a token from a file that is rotated while calls run.

The messages are bytes: grpcio alone is installed, and no generated code.
"""

import threading
import time

import grpc

import support
from support import check

CALLERS = 4
CALL_SECONDS_MAX = 5
CALLS_SECONDS_MAX = 20
# From the last write of a file until no stream is left that lost its right, and some more.
IN_FORCE_SECONDS_MAX = 3
CALLS_MIN = 50
POLICY = """revoked = [{revoked}]
[[allow]]
who = ["token/old", "token/new"]
may = ["discover", "register"]
on = "shop/*"
"""


class TokenFile(grpc.AuthMetadataPlugin):
    """Reads the token for each call, as the file may have been replaced."""

    def __init__(self, path):
        self.path = path

    def __call__(self, _context, callback):
        callback((("authorization", f"Bearer {self.path.read_text().strip()}"),), None)


class Callers:
    """Threads that register, resolve, and find out who they are, until they are stopped."""

    def __init__(self, channel):
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.calls, self.failures = {"token/old": 0, "token/new": 0}, []
        self.channel = channel
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(CALLERS)]

    def run(self, index):
        register = support.register_request("orders", f"instance-{index}")
        while not self.stop.is_set():
            try:
                call(self.channel, "Registry/Register", register)
                call(self.channel, "Discovery/Resolve", support.resolve_request("orders"))
                who = call(self.channel, "Admin/WhoAmI", b"")
                with self.lock:
                    self.calls["token/new" if b"token/new" in who else "token/old"] += 3
            except grpc.RpcError as error:
                with self.lock:
                    self.failures.append(error)
            time.sleep(0.005)

    def wait_for(self, principal, calls):
        """Waits until so many calls were made with a token, or one failed."""

        def holds():
            with self.lock:
                return self.calls[principal] >= calls or self.failures

        support.wait_for(f"{calls} calls by {principal}", holds, CALLS_SECONDS_MAX)
        if self.failures:
            raise support.Failed(f"a call failed: {self.failures[0]}")

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def call(channel, method, request, metadata=None):
    """A call, in bytes. Fails with `grpc.RpcError`."""
    method = channel.unary_unary(f"/waypost.v1.{method}")
    return method(request, timeout=CALL_SECONDS_MAX, metadata=metadata)


def refused(channel, metadata, reason):
    """Returns whether a call is refused as UNAUTHENTICATED with a reason, and what it got."""
    try:
        request = support.register_request("orders", "stranger")
        got = call(channel, "Registry/Register", request, metadata)
    except grpc.RpcError as error:
        return unauthenticated(error, reason), error
    return False, got


def unauthenticated(error, reason):
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return error.code() == grpc.StatusCode.UNAUTHENTICATED and reason in details


def watch_ends(watch):
    """Reads a watch to its end. Returns its error."""
    try:
        for _ in watch:
            pass
    except grpc.RpcError as error:
        return error
    raise support.Failed("the watch ended without an error")


def rotation(folder, channel, policy, texts, entries):
    file = folder / "token"
    namespace = support.text(1, "shop")
    with Callers(channel) as callers:
        # It has the old token for as long as it is open.
        watch = channel.unary_stream("/waypost.v1.Discovery/Watch")(namespace, timeout=60)
        callers.wait_for("token/old", CALLS_MIN)
        support.replace(file, texts["new"])
        callers.wait_for("token/new", CALLS_MIN)
        began = time.monotonic()
        support.replace(policy, POLICY.format(revoked='"token/old"') + entries)
        error = watch_ends(watch)
        seconds = time.monotonic() - began
        ended = unauthenticated(error, b"REVOKED") and seconds <= IN_FORCE_SECONDS_MAX
        check("the watch with the revoked token ends as UNAUTHENTICATED", ended, error)
        callers.wait_for("token/new", callers.calls["token/new"] + CALLS_MIN)
    check(f"no call of {callers.calls} failed", not callers.failures, callers.failures[:1])


def program(folder):
    pki = support.authority(folder)
    texts, made = {}, {}
    for name in ("old", "new"):
        texts[name], made[name] = support.token(name)
    entries = "".join(
        f'[[token]]\nname = "{token["name"]}"\nsha256 = "{token["sha256"]}"\n'
        f'expires = {token["expires"]}\n'
        for token in made.values()
    )
    policy, file = folder / "policy.toml", folder / "token"
    policy.write_text(POLICY.format(revoked="") + entries)
    file.write_text(texts["old"] + "\n")
    with support.registry(folder, "--tls", pki / "server", "--policy", policy) as address:
        tls = grpc.ssl_channel_credentials((pki / "ca.crt").read_bytes())
        plugin = grpc.metadata_call_credentials(TokenFile(file))
        rotating = grpc.composite_channel_credentials(tls, plugin)
        with grpc.secure_channel(address, rotating) as channel:
            rotation(folder, channel, policy, texts, entries)
        # Each on a connection of its own: five refusals close one.
        cases = [
            ("the revoked token", f"Bearer {texts['old']}", b"REVOKED"),
            ("a token that never was", f"Bearer {texts['new'][:-1]}_", b"TOKEN_INVALID"),
            ("no token", None, b"NO_CREDENTIALS"),
        ]
        for sentence, value, reason in cases:
            with grpc.secure_channel(address, tls) as channel:
                metadata = None if value is None else (("authorization", value),)
                holds, got = refused(channel, metadata, reason)
                check(f"{sentence} is UNAUTHENTICATED, {reason.decode()}", holds, got)


support.main(program)
