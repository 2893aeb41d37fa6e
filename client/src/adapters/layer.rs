//! A tower layer that picks an instance for each request, over any transport.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Layer;

use super::picked_call::{CallError, PickedCall};
use crate::{
    balance::PickContext, endpoint::Endpoint, endpoint::Outcome, proto::Instance, service::Service,
};

/// Picks an instance for each request, and passes both to the inner service. With the feature
/// `tower`.
///
/// A request counts as in flight until it has a response or is abandoned. The classifier returns
/// its outcome, and its response time is measured; later picks depend on both.
///
/// It fails at once, with [`CallError::NoInstance`], if there is no instance, or the first view is
/// still loading: wait for [`Service::ready`] first.
///
/// ```
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use waypost_client::{Instance, Outcome, PickLayer, Picked, Service, proto::Status};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let instance = Instance {
/// #     host: "10.0.0.1".into(),
/// #     port: 8080,
/// #     status: Status::Up.into(),
/// #     ..Instance::default()
/// # };
/// # let orders = Service::fixed([instance]);
/// let classify = |result: &Result<String, std::io::Error>| match result {
///     Ok(_) => Outcome::Success,
///     Err(_) => Outcome::Failure,
/// };
/// let calls = ServiceBuilder::new()
///     .layer(PickLayer::new(orders, classify))
///     // Any transport; here one that only returns the address.
///     .service(service_fn(|call: Picked<&'static str>| async move {
///         Ok(format!("{} to {}", call.request, call.address()))
///     }));
/// assert_eq!(calls.oneshot("hello").await?, "hello to 10.0.0.1:8080");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PickLayer<C> {
    service: Service,
    classify: C,
}

impl<C> PickLayer<C> {
    /// Creates a layer that picks from `service`, and gets outcomes from `classify`, a
    /// `Fn(&Result<Response, Error>) -> Outcome`.
    ///
    /// ```
    /// use waypost_client::{Outcome, PickLayer, Service};
    ///
    /// let layer = PickLayer::new(Service::fixed([]), |result: &Result<(), ()>| match result {
    ///     Ok(()) => Outcome::Success,
    ///     Err(()) => Outcome::Failure,
    /// });
    /// # drop(layer);
    /// ```
    pub fn new(service: Service, classify: C) -> Self {
        Self { service, classify }
    }
}

impl<S, C: Clone> Layer<S> for PickLayer<C> {
    type Service = PickService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        PickService { layer: self.clone(), inner }
    }
}

impl<C> fmt::Debug for PickLayer<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PickLayer").field("service", &self.service).finish_non_exhaustive()
    }
}

/// A service behind a [`PickLayer`].
///
/// ```
/// use tower::Layer;
/// use waypost_client::{Outcome, PickLayer, PickService, Service};
///
/// let classify = |_: &Result<(), ()>| Outcome::Success;
/// let service: PickService<(), _> = PickLayer::new(Service::fixed([]), classify).layer(());
/// # drop(service);
/// ```
#[derive(Clone, Debug)]
pub struct PickService<S, C> {
    layer: PickLayer<C>,
    inner: S,
}

impl<S, C, R> tower::Service<R> for PickService<S, C>
where
    S: tower::Service<Picked<R>>,
    S::Future: Send + 'static,
    C: Fn(&Result<S::Response, S::Error>) -> Outcome + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(CallError::Call)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let call = match PickedCall::start(&self.layer.service, &PickContext::new()) {
            Ok(call) => call,
            Err(reason) => return Box::pin(async move { Err(CallError::NoInstance(reason)) }),
        };
        let endpoint = Arc::clone(call.endpoint());
        let response = self.inner.call(Picked { request, endpoint });
        let classify = self.layer.classify.clone();
        Box::pin(async move {
            let result = response.await;
            call.end(classify(&result));
            result.map_err(CallError::Call)
        })
    }
}

/// A request, and the instance picked for it.
///
/// ```
/// use waypost_client::Picked;
///
/// fn target(call: &Picked<String>) -> String {
///     format!("{} at {}", call.instance().id, call.address())
/// }
/// # let _ = target;
/// ```
pub struct Picked<R> {
    /// The request.
    pub request: R,
    endpoint: Arc<Endpoint>,
}

impl<R> Picked<R> {
    /// Returns the instance, as it was when it was picked.
    ///
    /// ```
    /// # fn example(call: waypost_client::Picked<()>) -> u32 {
    /// call.instance().ports["metrics"]
    /// # }
    /// ```
    #[must_use]
    pub fn instance(&self) -> &Instance {
        self.endpoint.instance()
    }

    /// Returns the address of its main port: `host:port`, an IPv6 address in brackets.
    ///
    /// ```
    /// # fn example(call: waypost_client::Picked<()>) {
    /// println!("calling {}", call.address());
    /// # }
    /// ```
    #[must_use]
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }
}

impl<R> fmt::Debug for Picked<R> {
    /// Omits the request, and the instance's metadata, which must not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Picked").field("address", &self.address()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tower::{Service as _, ServiceExt, service_fn};

    use super::*;
    use crate::proto::Status;

    fn service(ids: &[&str]) -> Service {
        Service::fixed(ids.iter().map(|id| Instance {
            id: (*id).into(),
            host: (*id).into(),
            port: 80,
            status: Status::Up.into(),
            ..Instance::default()
        }))
    }

    fn classify(result: &Result<(), ()>) -> Outcome {
        if result.is_ok() { Outcome::Success } else { Outcome::Failure }
    }

    #[tokio::test]
    async fn a_request_counts_as_in_flight_until_its_response() {
        let seen: Arc<Mutex<Option<Arc<Endpoint>>>> = Arc::default();
        let (release, released) = tokio::sync::watch::channel(false);
        let inner = service_fn(|call: Picked<()>| {
            *seen.lock().unwrap() = Some(Arc::clone(&call.endpoint));
            let mut released = released.clone();
            async move { released.wait_for(|released| *released).await.map(drop).map_err(drop) }
        });
        let mut calls = PickLayer::new(service(&["a"]), classify).layer(inner);
        let call = calls.ready().await.unwrap().call(());
        let endpoint = seen.lock().unwrap().clone().unwrap();
        assert_eq!(endpoint.in_flight(), 1);
        let given_up = calls.ready().await.unwrap().call(());
        assert_eq!(endpoint.in_flight(), 2);
        drop(given_up);
        assert_eq!(endpoint.in_flight(), 1);
        release.send_replace(true);
        call.await.unwrap();
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[tokio::test]
    async fn an_instance_with_classified_failures_is_ejected() {
        let inner = service_fn(|call: Picked<()>| {
            std::future::ready(if call.instance().id == "bad" { Err(()) } else { Ok(()) })
        });
        let mut calls = PickLayer::new(service(&["a", "b", "bad"]), classify).layer(inner);
        let mut failed = 0;
        for _ in 0..1_000 {
            failed += usize::from(calls.ready().await.unwrap().call(()).await.is_err());
        }
        assert!((1..=5).contains(&failed), "{failed}");
    }

    #[tokio::test]
    async fn without_instances_a_call_fails_at_once() {
        let inner = service_fn(|_: Picked<()>| std::future::ready(Ok(())));
        let calls = PickLayer::new(service(&[]), classify).layer(inner);
        let error = calls.oneshot(()).await.unwrap_err();
        assert_eq!(error, CallError::NoInstance(crate::NoInstance::Empty));
    }
}
