//! Settings that would send credentials where they do not belong are refused.

use waypost_client::{BuildError, Client, Credentials, Token};
use waypost_testing::authority::TestAuthority;

fn build(url: &str, credentials: Option<Credentials>) -> Result<(), BuildError> {
    let builder = Client::builder().registry(url);
    match credentials {
        Some(credentials) => builder.credentials(credentials).build().map(drop),
        None => builder.build().map(drop),
    }
}

fn token() -> Credentials {
    Credentials::default().token(Token::new("s3cret").unwrap())
}

#[test]
fn credentials_go_over_tls_or_to_this_machine() {
    let authority = TestAuthority::new("ca");
    let folder = authority.folder("orders");
    let identity = || Credentials::folder(folder.path()).unwrap();
    for url in ["http://127.0.0.1:7510", "http://[::1]:7510", "http://localhost:7510"] {
        assert!(build(url, Some(token())).is_ok(), "{url}");
        assert!(build(url, Some(identity())).is_ok(), "{url}");
    }
    for url in ["http://10.0.0.1:7510", "http://registry:7510", "http://localhost.example:7510"] {
        for credentials in [token(), identity(), identity().token(Token::new("s3cret").unwrap())] {
            let refused = build(url, Some(credentials));
            assert!(matches!(refused, Err(BuildError::ClearText { .. })), "{url}: {refused:?}");
        }
        assert!(build(url, None).is_ok(), "{url}");
    }
    // One address in clear text is one too many.
    let builder = Client::builder().registry("https://a:7510").registry("http://b:7510");
    let refused = builder.credentials(identity()).build();
    assert!(matches!(refused, Err(BuildError::ClearText { url }) if url == "http://b:7510"));
}

#[test]
fn https_needs_certificates_to_trust() {
    for credentials in [None, Some(Credentials::default()), Some(token())] {
        let refused = build("https://registry:7510", credentials).unwrap_err();
        assert!(matches!(refused, BuildError::NoRoots { .. }));
        assert!(refused.to_string().contains("ca.crt"), "{refused}");
    }
}

#[test]
fn an_invalid_server_id_is_refused() {
    let authority = TestAuthority::new("ca");
    let folder = authority.folder_of_roots();
    let credentials = |id: &str| Credentials::folder(folder.path()).unwrap().server_id(id);
    let valid = credentials("spiffe://prod.example/waypost");
    assert!(build("https://registry:7510", Some(valid)).is_ok());
    let refused = build("https://registry:7510", Some(credentials("registry")));
    assert!(matches!(refused, Err(BuildError::BadServerId { id, .. }) if id == "registry"));
}
