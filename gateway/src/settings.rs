//! What the configuration file comes to: all that is made of one of its versions. Never changes once
//! made; a request goes by one of them from its beginning to its end.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
};

use http::{Method, Request, Response, header};
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};
use waypost_config::{
    ConfigError, ConfigErrors,
    reload::{LoadError, WatchedFile},
};

use crate::{
    config::{Allowed, Config, Cors},
    headers::hop_by_hop::remove_family,
    limits::rate::RateLimits,
    middleware::compression::compress,
    upstream::channels::Lines,
};

/// Watched where no route names a service, to see whether the registry answers.
const OWN_SERVICE: &str = "gateway";
/// All fields of answers that CORS defines begin so, and those of its extensions.
const CORS_FIELDS: &str = "access-control-";

/// One version of them.
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) rates: RateLimits,
    pub(crate) lines: Lines,
    cors: Option<CorsLayer>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Settings").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Default for Settings {
    /// Those of an empty file.
    fn default() -> Self {
        let rates = RateLimits::new([]);
        Self { rates, lines: Lines::default(), cors: None, config: Config::default() }
    }
}

impl Settings {
    /// Opens the configuration file, or has the default without one. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is invalid.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<WatchedFile<Self>, LoadError> {
        let Some(path) = path else { return Ok(WatchedFile::fixed(Self::default())) };
        let directory = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        WatchedFile::open(path, move |text, previous| Self::parse(text, &directory, previous))
    }

    /// Reads a file's text; the files that it names are relative to `directory`. What clients have
    /// used of their rates under the `previous` settings stays used.
    fn parse(text: &str, directory: &Path, previous: Option<&Self>) -> Result<Self, ConfigErrors> {
        if is_empty(text) {
            let message = "the file has no settings; to run without any, write `implicit = true`";
            return Err(ConfigError::of_file(message).into());
        }
        let config = Config::parse(text, directory)?;
        let rates = config
            .routes
            .routes()
            .iter()
            .filter_map(|route| Some((route.name().as_str().to_owned(), route.rate?)));
        let rates = match previous {
            Some(previous) => previous.rates.changed(rates),
            None => RateLimits::new(rates),
        };
        let cors = config.cors.as_ref().map(layer);
        Ok(Self { rates, lines: Lines::default(), cors, config })
    }

    /// The services to watch from the start: those that routes name.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        let routes = self.config.routes.routes().iter();
        routes.map(|route| route.service.as_str()).chain([OWN_SERVICE])
    }

    /// The longest body of a request, in bytes.
    pub(crate) fn body_max(&self) -> Option<u64> {
        self.config.limits.body
    }

    /// Whether anything is added to answers.
    pub(crate) fn dresses(&self) -> bool {
        self.cors.is_some() || self.config.compression
    }

    /// What `inner` answers, as its caller takes it, and with what pages of other origins have to be told;
    /// preflights are answered here.
    pub(crate) async fn dress<B, S>(
        &self,
        inner: S,
        request: Request<B>,
    ) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        if !self.config.compression {
            return self.share(inner, request).await;
        }
        let inner = tower::service_fn(move |request| compress(inner.clone(), request));
        self.share(inner, request).await
    }

    /// Answers with `inner`, and with the CORS fields that the configuration gives. Where it has
    /// `[cors]`, those of an instance are removed: they would widen what the operator allows.
    async fn share<B, S>(&self, inner: S, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    {
        let Some(cors) = &self.cors else { return inner.oneshot(request).await };
        let inner = inner.map_response(|mut answer: Response<Body>| {
            remove_family(answer.headers_mut(), CORS_FIELDS);
            answer
        });
        if !is_other_options(&request) {
            return cors.layer(inner).oneshot(request).await;
        }
        // The layer takes every OPTIONS for a preflight: it sees another method meanwhile.
        let mut request = request;
        *request.method_mut() = Method::GET;
        let inner = inner.map_request(|mut request: Request<B>| {
            *request.method_mut() = Method::OPTIONS;
            request
        });
        cors.layer(inner).oneshot(request).await
    }
}

/// Returns whether a file has no key, as one that is being written in place, or that a full disk
/// cut off.
fn is_empty(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

/// Returns true for an OPTIONS that is not a preflight (Fetch standard, section 3.3.2).
fn is_other_options<B>(request: &Request<B>) -> bool {
    let mut names = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD].into_iter();
    request.method() == Method::OPTIONS && !names.all(|name| request.headers().contains_key(name))
}

fn layer(cors: &Cors) -> CorsLayer {
    let layer = CorsLayer::new().allow_credentials(cors.credentials);
    let layer = match &cors.origins {
        Allowed::Any => layer.allow_origin(AllowOrigin::any()),
        Allowed::These(origins) => layer.allow_origin(AllowOrigin::list(origins.iter().cloned())),
    };
    let layer = match &cors.methods {
        Allowed::Any => layer.allow_methods(AllowMethods::any()),
        Allowed::These(methods) => layer.allow_methods(AllowMethods::list(methods.iter().cloned())),
    };
    let layer = match &cors.headers {
        Allowed::Any => layer.allow_headers(AllowHeaders::any()),
        Allowed::These(headers) => layer.allow_headers(AllowHeaders::list(headers.iter().cloned())),
    };
    let layer = match &cors.exposed {
        Allowed::Any => layer.expose_headers(ExposeHeaders::any()),
        Allowed::These(exposed) => {
            layer.expose_headers(ExposeHeaders::list(exposed.iter().cloned()))
        }
    };
    match cors.max_age {
        None => layer,
        Some(age) => layer.max_age(age),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_settings_is_invalid() {
        for text in ["", "\n\n", "\u{feff}", "# implicit = false\n", "# a\n\n  # b"] {
            let errors = Settings::parse(text, Path::new(""), None).expect_err("no settings");
            assert!(errors.to_string().contains("has no settings"), "{errors}");
        }
        assert!(Settings::parse("implicit = true", Path::new(""), None).is_ok());
    }
}
