"""A web page of another origin in a headless Chromium, against an open registry on loopback.

The page sends all that a page can send: to loopback, to a name that leads there, and, after its own
name was rebound to the registry, to its own origin. Each attempt has a control that shows that the
same requests arrive elsewhere, or are served where the name of the page is `localhost`.
"""

import contextlib
import http.server
import json
import pathlib
import shutil
import socket
import subprocess
import threading

import support
from support import check

PAGE = pathlib.Path(__file__).with_name("page.html")
PROGRAMS = ["chromium-headless-shell", "chromium", "google-chrome"]
PAGE_SECONDS_MAX = 30
CONNECTION_SECONDS_MAX = 30
SIMPLE = ["simple", "untyped", "stripped", "readable", "beacon"]
WAYS = [*SIMPLE, "preflight", "form", "image", "socket"]


class Handler(http.server.BaseHTTPRequestHandler):
    """Requests to a site. Each connection has one, so that no one outlives a rebinding."""

    def do_GET(self):
        if self.path == "/plan":
            self.respond("application/json", json.dumps(self.server.site.plan).encode())
        else:
            self.respond("text/html", PAGE.read_bytes())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.site.receive(self.path, body)
        self.respond("text/plain", b"")

    def do_OPTIONS(self):
        self.respond("text/plain", b"")

    def respond(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.send_header("access-control-allow-origin", "*")
        self.send_header("access-control-allow-headers", "content-type")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Serves a site, or is the way to the registry once its name is rebound."""

    daemon_threads = True

    def finish_request(self, request, client_address):
        request.settimeout(CONNECTION_SECONDS_MAX)
        if self.site.rebound.is_set():
            forward(request, self.site.registry)
        else:
            super().finish_request(request, client_address)


class Site:
    """A site of the attacker, on a port of its own, with all that was posted to it."""

    def __init__(self, registry):
        self.registry, self.plan = registry, {}
        self.posted, self.reported = [], threading.Event()
        self.rebound = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.site = self
        self.port = self.server.server_address[1]

    def receive(self, path, body):
        if path == "/rebind":
            self.rebound.set()
        self.posted.append((path, body))
        if path == "/report":
            self.reported.set()

    def report(self):
        return next(json.loads(body) for path, body in self.posted if path == "/report")

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error):
        self.server.shutdown()
        self.server.server_close()


def forward(caller, registry):
    """Copies the bytes of a connection to the registry, and those that come back."""
    host, port = registry.split(":")

    def copy(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    with socket.create_connection((host, int(port)), CONNECTION_SECONDS_MAX) as target:
        back = threading.Thread(target=copy, args=(target, caller), daemon=True)
        back.start()
        copy(caller, target)
        back.join(CONNECTION_SECONDS_MAX)


@contextlib.contextmanager
def chromium(folder, url):
    """Opens a page. Its names lead to loopback; no protection of the browser's own is relied on."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise support.Failed(f"none of {PROGRAMS} is installed")
    rules = "MAP evil.test 127.0.0.1, MAP rebound.test 127.0.0.1, MAP * ~NOTFOUND"
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'browser'}", "--remote-debugging-port=0"]
    command += [f"--host-resolver-rules={rules}, EXCLUDE localhost, EXCLUDE 127.0.0.1"]
    command += ["--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"]
    with open(folder / "browser.log", "wb") as lines:
        browser = subprocess.Popen(
            [*command, url], stdin=subprocess.DEVNULL, stdout=lines, stderr=lines
        )
    try:
        yield
    finally:
        browser.terminate()
        try:
            browser.wait(support.COMMAND_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()


def requests(target, ways, service):
    """Requests to a target: to remove the instance `a` of `orders`, and to add one to a service."""
    bodies = {
        "Deregister": support.deregister_request("orders", "a"),
        "Register": support.register_request(service, "b"),
    }
    return [
        {
            "way": way,
            "method": method,
            "url": f"{target}/waypost.v1.Registry/{method}",
            "body": support.grpc_frame(body).hex(),
        }
        for way in ways
        for method, body in bodies.items()
    ]


def visit(folder, site, host, plan, reports):
    """Opens a site's page under a name, until it reports. Returns the report."""
    site.plan = {**plan, "report": f"http://evil.test:{reports.port}/report"}
    with chromium(folder, f"http://{host}:{site.port}/"):
        log = folder / "browser.log"
        detail = lambda: log.read_text(errors="replace")
        support.wait_for("report of the page", reports.reported.is_set, PAGE_SECONDS_MAX, detail)
    return reports.report()


def instances(address, service):
    """The ids of the instances of a service, as the command line sees them."""
    options = ("--registry", f"http://{address}", "--namespace", "shop", "--output", "json")
    return [one["id"] for one in json.loads(support.waypost("instances", service, *options))]


def curl(folder, address, method, request):
    """Sends a request as a program of this machine does. Returns the headers of the response."""
    body = folder / "request"
    body.write_bytes(support.grpc_frame(request))
    url = f"http://localhost:{address.split(':')[1]}/waypost.v1.Registry/{method}"
    options = ["-sS", "-4", "--http1.1", "--max-time", "5", "--output", "/dev/null"]
    options += ["--dump-header", "-", "--header", "content-type: application/grpc+proto"]
    return support.output("curl", *options, "--data-binary", f"@{body}", url).lower()


def unchanged(address, service, sentence, report):
    check(f"{sentence}: nothing is removed", instances(address, "orders") == ["a"], report)
    check(f"{sentence}: nothing is added", instances(address, service) == [], report)


def from_another_origin(folder, address):
    port = address.split(":")[1]
    for host in ("127.0.0.1", "localhost", "rebound.test"):
        with Site(address) as site:
            plan = {"requests": requests(f"http://{host}:{port}", WAYS, "evil")}
            report = visit(folder, site, "evil.test", plan, site)
            readable = [one for one in report if one.get("type") in ("basic", "cors")]
            check(f"to {host}: the page reads no response", not readable, report)
            unchanged(address, "evil", f"to {host}", report)


def requests_arrive_elsewhere(folder, address):
    """The control: what the page sends to another server of this machine arrives there."""
    with Site(address) as site, Site(address) as other:
        plan = {"requests": requests(f"http://127.0.0.1:{other.port}", WAYS, "evil")}
        report = visit(folder, site, "evil.test", plan, site)
        whole = support.grpc_frame(support.register_request("evil", "b"))
        arrived = sum(body == whole for _, body in other.posted)
        check("the same requests arrive at another server", arrived > len(SIMPLE), report)


def from_a_rebound_name(folder, address, host, service):
    """The page's own name leads to the registry, so that no rule for other origins holds."""
    with Site(address) as site, Site(address) as reports:
        own = requests(f"http://{host}:{site.port}", ["preflight", *SIMPLE], service)
        report = visit(folder, site, host, {"rebind": True, "requests": own}, reports)
    calls = [one for one in report if one["way"] == "preflight"]
    return report, [one.get("grpc") for one in calls], [one.get("status") for one in calls]


def program(folder):
    with support.registry(folder) as address:
        added = curl(folder, address, "Register", support.register_request("orders", "a"))
        check("a program of this machine registers", instances(address, "orders") == ["a"], added)
        requests_arrive_elsewhere(folder, address)
        from_another_origin(folder, address)
        attack = from_a_rebound_name(folder, address, "rebound.test", "evil")
        report, statuses, _ = attack
        check("from a rebound name: PERMISSION_DENIED", statuses == ["7", "7"], report)
        unchanged(address, "evil", "from a rebound name", report)
        # The control: under a name of this machine, the same page is served.
        report, _, statuses = from_a_rebound_name(folder, address, "localhost", "own")
        served = instances(address, "orders") == [] and instances(address, "own") == ["b"]
        check("the same page at localhost is served", statuses == [200, 200] and served, report)


support.main(program)
