"""grpcurl over mutual TLS, with the files that `waypost ca` makes."""

import json
import os

import support
from support import check

ISSUE = ("ca", "issue", "orders", "--namespace", "shop")


def identity(folder):
    return ("-cacert", folder / "ca.crt", "-cert", folder / "tls.crt", "-key", folder / "tls.key")


def request(service):
    instance = {"namespace": "shop", "service": service, "id": "a", "host": "10.0.0.7", "port": 80}
    return json.dumps({"instance": instance})


def call(address, options, method, body):
    return support.run("grpcurl", *options, "-d", body, address, f"waypost.v1.{method}")


def operator_may_do_all(address, pki):
    options = identity(pki / "admin")
    services = support.output("grpcurl", *options, address, "list").split()
    expected = {"waypost.v1.Registry", "waypost.v1.Discovery", "waypost.v1.Admin"}
    check("the operator lists the services by reflection", expected <= set(services), services)
    code, printed = call(address, options, "Registry/Register", request("payments"))
    check("the operator registers an instance", code == 0, printed)
    resolve = json.dumps({"namespace": "shop", "service": "payments"})
    code, printed = call(address, options, "Discovery/Resolve", resolve)
    check("the operator resolves it", code == 0 and '"10.0.0.7"' in printed, printed)


def workload_has_its_own_service_alone(address, pki):
    support.waypost(*ISSUE, "--dir", pki)
    options = identity(pki / "workloads/shop/orders")
    code, printed = call(address, options, "Registry/Register", request("orders"))
    check("a workload registers its own service", code == 0, printed)
    code, printed = call(address, options, "Registry/Register", request("payments"))
    expected = ["PermissionDenied", '"NOT_ALLOWED"', '"payments"', "ns/shop/sa/orders"]
    denied = code != 0 and all(part in printed for part in expected)
    check("another service is PERMISSION_DENIED, NOT_ALLOWED", denied, printed)


def handshakes_are_refused(address, pki, other):
    # The alert comes after the client's part of a TLS 1.3 handshake: only gRPC's own log has it.
    log = {**os.environ, "GRPC_GO_LOG_SEVERITY_LEVEL": "info"}

    def refused(sentence, options, error):
        command = ("grpcurl", "-connect-timeout", "2", *options, address, "list")
        code, printed = support.run(*command, env=log)
        check(sentence, code != 0 and error in printed, printed)

    trust = ("-cacert", pki / "ca.crt")
    missing = "remote error: tls: certificate required"
    refused("no certificate gets an alert", trust, missing)
    stranger = (*trust, "-cert", other / "admin/tls.crt", "-key", other / "admin/tls.key")
    # Go keeps back a certificate whose authority the server does not name; OpenSSL sends it.
    refused("the certificate of another authority gets an alert", stranger, missing)
    doubter = ("-cacert", other / "ca.crt", *identity(pki / "admin")[2:])
    untrusted = "certificate signed by unknown authority"
    refused("a client that trusts another authority does not connect", doubter, untrusted)
    refused("clear text does not connect", ("-plaintext",), "Failed to dial")


def program(folder):
    pki, elsewhere = support.authority(folder), folder / "elsewhere"
    elsewhere.mkdir()
    other = support.authority(elsewhere)
    files = ("--tls", pki / "server", "--policy", pki / "policy.toml")
    with support.registry(folder, *files) as address:
        operator_may_do_all(address, pki)
        workload_has_its_own_service_alone(address, pki)
        handshakes_are_refused(address, pki, other)


support.main(program)
