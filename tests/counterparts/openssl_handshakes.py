"""openssl's `s_client`: handshakes that the registry refuses, each with the alert that fits."""

import subprocess

import support
from support import check

REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
# OpenSSL itself refuses old versions, but at this level.
OLD = ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")


def handshake(address, pki, *options):
    """Shakes hands, then sends a request. Returns all that was printed until the server closed."""
    command = ["openssl", "s_client", "-connect", address, "-CAfile", str(pki / "ca.crt")]
    command += ["-servername", "localhost", "-alpn", "http/1.1", "-ign_eof", *map(str, options)]
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        printed, _ = client.communicate(REQUEST, support.COMMAND_SECONDS_MAX)
    except subprocess.TimeoutExpired as late:
        raise support.Failed("s_client: the server did not close") from late
    finally:
        client.kill()
        client.wait()
    return printed.decode(errors="replace")


def expired(folder, pki):
    """Issues a certificate of the registry's own authority that ended. Returns its two files."""
    certificate, key, wish = (folder / f"expired.{end}" for end in ("crt", "key", "csr"))
    settings = folder / "openssl.cnf"
    settings.write_text(
        f"""[ca]
default_ca = authority
[authority]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
x509_extensions = leaf
[any]
commonName = optional
[leaf]
extendedKeyUsage = clientAuth
subjectAltName = URI:spiffe://waypost.internal/operators/late
"""
    )
    (folder / "index").write_text("")
    (folder / "serial").write_text("7F01\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key)
    support.output("openssl", "req", "-new", *curve, "-subj", "/CN=late", "-out", wish)
    times = ("-startdate", "20200101000000Z", "-enddate", "20200401000000Z")
    authority = ("-cert", pki / "ca.crt", "-keyfile", pki / "ca.key")
    files = ("-in", wish, "-out", certificate)
    command = ("openssl", "ca", "-batch", "-notext", "-config", settings)
    support.output(*command, *authority, *times, *files)
    return certificate, key


def pair(folder):
    return folder / "tls.crt", folder / "tls.key"


def refused(address, pki, folder, other):
    late, stranger = expired(folder, pki), pair(other / "admin")
    cases = [
        ("no certificate", None, "certificate required", 116),
        ("an expired certificate", late, "certificate expired", 45),
        ("a certificate of an unknown authority", stranger, "unknown ca", 48),
    ]
    for version in ("-tls1_2", "-tls1_3"):
        for sentence, files, words, number in cases:
            options = () if files is None else ("-cert", files[0], "-key", files[1])
            printed = handshake(address, pki, version, *options)
            alert = f"alert {words}" in printed and f"SSL alert number {number}" in printed
            quiet = "\nHTTP/1.1 " not in printed
            check(f"{version[1:]}: {sentence} gets alert {number}", alert and quiet, printed)


def program(folder):
    pki, elsewhere = support.authority(folder), folder / "elsewhere"
    elsewhere.mkdir()
    other = support.authority(elsewhere)
    files = ("--tls", pki / "server", "--policy", pki / "policy.toml")
    with support.registry(folder, *files) as address:
        own = pair(pki / "admin")
        known = ("-cert", own[0], "-key", own[1])
        for version in ("-tls1_2", "-tls1_3"):
            printed = handshake(address, pki, version, *known)
            answered = "\nHTTP/1.1 " in printed and "Verify return code: 0 (ok)" in printed
            check(f"{version[1:]}: the operator's certificate gets a response", answered, printed)
        printed = handshake(address, pki, *OLD, *known)
        check("tls1_1 is refused", "alert" in printed and "\nHTTP/1.1 " not in printed, printed)
        refused(address, pki, folder, other)


support.main(program)
