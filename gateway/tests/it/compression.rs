//! Answers that are sent with fewer bytes.

use http::Request;

use crate::support::{Answer, Gateway, full, orders};

/// Much of the same.
const TEXT: &[u8] = &[b'a'; 4_096];

async fn ask(gateway: &Gateway, accepted: Option<&str>) -> Answer {
    let mut request = Request::post("/orders");
    if let Some(accepted) = accepted {
        request = request.header("accept-encoding", accepted);
    }
    gateway.send(request.body(full(TEXT)).unwrap()).await
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_take_that() {
    let gateway = Gateway::new("compression = true").await;
    let _instance = orders(&gateway).await;
    for encoding in ["gzip", "br"] {
        let answer = ask(&gateway, Some(encoding)).await;
        assert_eq!(answer.header("content-encoding"), Some(encoding));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert!(answer.body.len() < TEXT.len() / 10, "{}", answer.body.len());
    }
    for accepted in [None, Some("identity"), Some("zstd")] {
        let answer = ask(&gateway, accepted).await;
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.body, TEXT);
    }
}

#[tokio::test]
async fn without_being_asked_to_the_gateway_compresses_nothing() {
    let gateway = Gateway::new("").await;
    let _instance = orders(&gateway).await;
    let answer = ask(&gateway, Some("gzip")).await;
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.body, TEXT);
}
