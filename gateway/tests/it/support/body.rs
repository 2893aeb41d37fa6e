//! Bodies that are made and read piece by piece.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tonic::body::Body;

use super::soon;

/// The source of a body while it is sent; the body ends when this is dropped.
type Feed = mpsc::Sender<Frame<Bytes>>;

/// A body that is sent in pieces, as they are fed.
pub fn fed() -> (Feed, Body) {
    let (feed, fed) = mpsc::channel(1);
    let fed = stream::unfold(fed, |mut fed| async move { Some((fed.recv().await?, fed)) });
    (feed, frames(fed))
}

/// A body of these frames, without a length.
pub fn frames(frames: impl Stream<Item = Frame<Bytes>> + Send + 'static) -> Body {
    let frames = frames.map(Ok::<_, Infallible>);
    Body::new(StreamBody::new(frames).map_err(|never| match never {}))
}

/// A body of `count` equal pieces.
pub fn pieces(piece: &'static [u8], count: usize) -> Body {
    let piece = Frame::data(Bytes::from_static(piece));
    frames(stream::iter((0..count).map(move |_| Frame::data(piece.data_ref().unwrap().clone()))))
}

/// A body whose length is known.
pub fn full(text: impl Into<Bytes>) -> Body {
    Body::new(http_body_util::Full::new(text.into()))
}

/// The next piece of a body, as text; none at its end. Trailers are no part of it.
pub async fn next_data<B: HttpBody<Data = Bytes> + Unpin>(body: &mut B) -> Option<String> {
    loop {
        let frame = soon(body.frame()).await?;
        let data = frame.ok().expect("the body goes on").into_data().ok()?;
        // In HTTP/2 an empty one may be the end.
        if !data.is_empty() {
            return Some(String::from_utf8(data.to_vec()).unwrap());
        }
    }
}

/// All of a body, and its trailers.
pub async fn read<B>(body: B) -> (Bytes, Option<HeaderMap>)
where
    B: HttpBody<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let collected = soon(body.collect()).await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}
