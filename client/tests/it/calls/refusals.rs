//! Instances that refuse calls, or connections.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic::Code;
use waypost_testing::greeter::greeter_server::GreeterServer;

use super::{Behavior, Replica, World, fixed, greet, soon};

/// The way in which a server refuses all calls.
#[derive(Clone, Copy)]
enum Refusal {
    /// Each by a reset.
    Reset,
    /// By a goodbye to their connection.
    Goodbye,
}

/// A server that turns away all calls. Its port, and how many it turned away.
async fn refusing(refusal: Refusal) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream, refusal, Arc::clone(&count)));
        }
    });
    (port, refused)
}

/// HTTP/2 as far as it is needed: frames of a length, a type, flags and a stream (RFC 9113, 4.1).
async fn refuse(
    mut stream: TcpStream,
    refusal: Refusal,
    count: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let (headers, reset, settings, goodbye) = (1, 3, 4, 7);
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&[0, 0, 0, settings, 0, 0, 0, 0, 0]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [long, longer, length, kind, _, id @ ..] = head;
        let length = u32::from_be_bytes([0, long, longer, length]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if kind == headers {
            count.fetch_add(1, Ordering::Relaxed);
            let mut frame = match refusal {
                Refusal::Reset => vec![0, 0, 4, reset, 0],
                // Streams up to 0, which is none, were looked at.
                Refusal::Goodbye => vec![0, 0, 8, goodbye, 0, 0, 0, 0, 0],
            };
            frame.extend(
                match refusal {
                    Refusal::Reset => [id, [0, 0, 0, 7]],
                    Refusal::Goodbye => [[0; 4], [0; 4]],
                }
                .concat(),
            );
            stream.write_all(&frame).await?;
        }
    }
}

/// A replica on a port of this machine.
async fn listening() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let replica = Replica { id: "good".into(), act: Behavior::Answer, seen: Arc::default() };
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(GreeterServer::new(replica));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    port
}

#[tokio::test]
async fn refused_stream_is_always_sent_to_another_instance() {
    for refusal in [Refusal::Reset, Refusal::Goodbye] {
        let (bad, refused) = refusing(refusal).await;
        let channel = fixed([bad, listening().await]).channel();
        let calling = async {
            while refused.load(Ordering::Relaxed) == 0 {
                assert_eq!(greet(&channel).await.unwrap(), "good");
            }
        };
        soon(calling).await;
    }
}

#[tokio::test]
async fn call_fails_soon_if_all_instances_refuse_it() {
    for refusal in [Refusal::Reset, Refusal::Goodbye] {
        let (bad, refused) = refusing(refusal).await;
        let channel = fixed([bad]).channel();
        assert_eq!(greet(&channel).await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(refused.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn instances_that_refuse_connections_fail_no_call() {
    let world = World::new();
    for id in ["a", "b", "c", "d"] {
        drop(world.replica(id, Behavior::Answer));
    }
    let _good = world.replica("good", Behavior::Answer);
    let channel = world.channel(5).await;
    for _ in 0..1_000 {
        assert_eq!(greet(&channel).await.unwrap(), "good");
    }
}
