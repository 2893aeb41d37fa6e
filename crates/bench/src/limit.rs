//! The limit: a bare tonic server that answers every call with as many bytes as a registry would,
//! and forwards changes to watchers. A workload against it costs what tonic, HTTP/2, the loopback
//! and the load generator cost.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    future::ready,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use clap::Args;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream::once};
use http::{Request as HttpRequest, Response as HttpResponse};
use parking_lot::Mutex;
use prost::Message;
use tokio::{net::TcpListener, sync::broadcast, time::sleep};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService},
    transport::Server,
};
use tower::{Service, service_fn};
use waypost_client::proto::{
    Change, ChangeKind, Changes, Cursor, Instance, KeepAliveRequest, RegisterResponse,
    ResolveResponse, Snapshot, UpdateRequest, UpdateResponse, WatchRequest, WatchResponse,
    watch_response::Event,
};

use crate::{error::BenchError, plan::InstancePlan};

/// The changes by which a watch may lag.
const CHANGES_MAX: usize = 4_096;
/// The key of watches of the whole namespace.
const ALL: &str = "";
/// The removals in one message of a watch, as in a registry.
const REMOVALS_A_MESSAGE: usize = 256;

/// Arguments of the limit's server.
#[derive(Clone, Debug, Args)]
pub(crate) struct LimitArguments {
    /// Listen address.
    #[arg(long)]
    listen: String,
    /// File to write the address to.
    #[arg(long)]
    port_file: PathBuf,
    /// Unused: the limit stores nothing.
    #[arg(long)]
    data_dir: PathBuf,
    /// Bytes of an instance's metadata.
    #[arg(long)]
    limit_payload: usize,
    /// Instances in the response to a lookup.
    #[arg(long)]
    found: u64,
    /// Time from a renewal to the removal of the instances; 0 for never.
    #[arg(long)]
    ttl_ms: u64,
}

/// Serves until the process is killed.
pub(crate) async fn serve(arguments: &LimitArguments) -> Result<(), BenchError> {
    let listener = TcpListener::bind(&arguments.listen).await.map_err(BenchError::Limit)?;
    let address = listener.local_addr().map_err(BenchError::Limit)?;
    let responses = CannedResponses::new(arguments);
    fs::write(&arguments.port_file, address.to_string()).map_err(BenchError::Limit)?;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let incoming = incoming.map(|stream| stream.and_then(|it| it.set_nodelay(true).map(|()| it)));
    Server::builder()
        .add_service(LimitRegistry(responses.clone()))
        .add_service(LimitDiscovery(responses))
        .serve_with_incoming(incoming)
        .await
        .map_err(|error| BenchError::Limit(io::Error::other(error)))
}

/// The responses, encoded in advance.
#[derive(Clone)]
struct CannedResponses {
    registered: Bytes,
    resolved: Bytes,
    updated: Bytes,
    /// The senders to watches, by watched service.
    changes: Arc<Mutex<HashMap<String, broadcast::Sender<Bytes>>>>,
    plan: InstancePlan,
    ttl: Duration,
}

impl CannedResponses {
    fn new(arguments: &LimitArguments) -> Self {
        let namespace = "bench-00000000".to_owned();
        let plan = InstancePlan {
            namespace,
            per_service: arguments.found,
            payload: arguments.limit_payload,
        };
        let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
        let registered = RegisterResponse {
            instance: Some(whole(&plan, 1_000_000, 0)),
            lease_id: 1 << 60,
            ttl,
            heartbeat_interval: ttl,
            cursor: cursor(),
        };
        let updated =
            UpdateResponse { instance: Some(whole(&plan, 1_000_000, 0)), cursor: cursor() };
        let resolved = ResolveResponse {
            instances: (0..arguments.found).map(|index| whole(&plan, index, 0)).collect(),
            cursor: cursor(),
            next_page_token: String::new(),
        };
        Self {
            registered: registered.encode_to_vec().into(),
            resolved: resolved.encode_to_vec().into(),
            updated: updated.encode_to_vec().into(),
            changes: Arc::default(),
            plan,
            ttl: Duration::from_millis(arguments.ttl_ms),
        }
    }

    /// Forwards an update to watchers.
    fn update(&self, request: &Bytes) -> Result<Bytes, Status> {
        let update = UpdateRequest::decode(request.clone());
        let update = update.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let instance = Instance {
            version: update.instance.unwrap_or_default().version,
            ..whole(&self.plan, update.lease_id - 1, 0)
        };
        let service = instance.service.clone();
        self.publish(&service, [change(ChangeKind::Updated, instance)].into());
        Ok(self.updated.clone())
    }

    /// Sends the removal of instances to watchers, one TTL later.
    fn expire(&self, leases: Vec<u64>) {
        let responses = self.clone();
        tokio::spawn(async move {
            sleep(responses.ttl).await;
            for leases in leases.chunks(REMOVALS_A_MESSAGE) {
                let gone = leases.iter().map(|lease| whole(&responses.plan, lease - 1, 0));
                responses
                    .publish(ALL, gone.map(|gone| change(ChangeKind::Removed, gone)).collect());
            }
        });
    }

    fn publish(&self, watched: &str, changes: Vec<Change>) {
        let event = Some(Event::Changes(Changes { changes }));
        let message = WatchResponse { cursor: cursor(), event };
        // Copied first: no task is woken under the lock.
        let watches = self.changes.lock().get(watched).cloned();
        if let Some(watches) = watches {
            // Fails if the last watcher has gone.
            let _ = watches.send(message.encode_to_vec().into());
        }
    }

    fn watch(&self, request: Bytes) -> Result<Messages, Status> {
        let request = WatchRequest::decode(request);
        let request = request.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let watched = request.services.into_iter().next().unwrap_or_else(|| ALL.to_owned());
        let event = Some(Event::Snapshot(Snapshot { instances: Vec::new(), last: true }));
        let first = WatchResponse { cursor: cursor(), event }.encode_to_vec().into();
        let behind = |_: BroadcastStreamRecvError| Status::data_loss("too slow");
        let watches = self
            .changes
            .lock()
            .entry(watched)
            .or_insert_with(|| broadcast::channel(CHANGES_MAX).0)
            .clone();
        let changes = BroadcastStream::new(watches.subscribe());
        Ok(Box::pin(once(ready(Ok(first))).chain(changes.map(move |it| it.map_err(behind)))))
    }

    fn keep_alive(&self, requests: Streaming<Bytes>) -> Messages {
        let responses = self.clone();
        Box::pin(requests.map(move |request| {
            let request = request?;
            if !responses.ttl.is_zero() {
                let request = KeepAliveRequest::decode(request);
                let request = request.map_err(|it| Status::invalid_argument(it.to_string()))?;
                responses.expire(request.lease_ids);
            }
            Ok(Bytes::new())
        }))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

fn cursor() -> Option<Cursor> {
    let history_id = "0190c5c2-7c1f-7a5e-9b1d-000000000000".to_owned();
    Some(Cursor { history_id, revision: 1_000_000 })
}

/// Builds an instance with all fields that a registry adds.
fn whole(plan: &InstancePlan, index: u64, number: u64) -> Instance {
    Instance {
        weight: Some(100),
        created_revision: 1_000_000,
        modified_revision: 1_000_000,
        registered_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 1_000_000 }),
        ..plan.instance(index, number)
    }
}

fn change(kind: ChangeKind, instance: Instance) -> Change {
    Change { kind: kind.into(), instance: Some(instance), reason: 0, revision: 1_000_000 }
}

#[derive(Clone)]
struct LimitRegistry(CannedResponses);

impl NamedService for LimitRegistry {
    const NAME: &'static str = "waypost.v1.Registry";
}

impl Service<HttpRequest<Body>> for LimitRegistry {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let responses = self.0.clone();
        Box::pin(async move {
            let path = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            if path == "KeepAlive" {
                let answer = service_fn(|request: Request<Streaming<Bytes>>| {
                    ready(Ok(Response::new(responses.keep_alive(request.into_inner()))))
                });
                return Ok(Grpc::new(RawCodec).streaming(answer, request).await);
            }
            let answer = service_fn(|request: Request<Bytes>| {
                ready(match &*path {
                    "Update" => responses.update(request.get_ref()).map(Response::new),
                    _ => Ok(Response::new(responses.registered.clone())),
                })
            });
            Ok(Grpc::new(RawCodec).unary(answer, request).await)
        })
    }
}

#[derive(Clone)]
struct LimitDiscovery(CannedResponses);

impl NamedService for LimitDiscovery {
    const NAME: &'static str = "waypost.v1.Discovery";
}

impl Service<HttpRequest<Body>> for LimitDiscovery {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let responses = self.0.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/Watch") {
                let answer = service_fn(|request: Request<Bytes>| {
                    ready(responses.watch(request.into_inner()).map(Response::new))
                });
                return Ok(Grpc::new(RawCodec).server_streaming(answer, request).await);
            }
            let answer = service_fn(|_: Request<Bytes>| {
                ready(Ok(Response::new(responses.resolved.clone())))
            });
            Ok(Grpc::new(RawCodec).unary(answer, request).await)
        })
    }
}

/// A codec that passes messages as bytes.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
