//! Malformed certificates: none of them panics.

use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{issue, server};
use crate::pki::CertificateDetails;

#[test]
fn changed_certificates_are_read_or_refused() {
    let der = CertificateDer::from_pem_slice(issue(&server()).certificate.as_bytes()).unwrap();
    let (mut read, mut refused) = (0, 0);
    let mut random = fastrand::Rng::with_seed(waypost_testing::seed::seed());
    for _ in 0..50_000 {
        let mut bytes = der.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] ^= 1 << random.u8(..8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        if CertificateDetails::parse(&bytes).is_some() { read += 1 } else { refused += 1 }
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
}

#[test]
fn other_bytes_are_refused() {
    let mut deep = vec![0x30; 100_000];
    deep.extend([0x80; 100]);
    for bytes in [&b""[..], b"0", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"hello", &deep] {
        assert_eq!(CertificateDetails::parse(bytes), None, "{bytes:?}");
    }
}

#[test]
fn pem_without_a_whole_certificate_is_refused() {
    let pem = issue(&server()).certificate;
    let cut = &pem[..pem.len() / 2];
    let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let second = format!("{pem}{wrong}");
    for text in ["", "hello", cut, wrong, &second] {
        assert_eq!(CertificateDetails::parse_pem(text.as_bytes()), None, "{text}");
    }
    assert_eq!(CertificateDetails::parse_pem(format!("{pem}{pem}").as_bytes()).unwrap().len(), 2);
}
