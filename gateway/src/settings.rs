//! One version of the configuration, and the state that depends on it.
//! Invariant: settings never change; a request uses one version from its start to its end.

use std::path::{Path, PathBuf};

use waypost_config::{
    ConfigError, ConfigErrors,
    reload::{LoadError, WatchedFile},
};

use crate::{
    config::GatewayConfig, limits::RateLimits, middleware::Layers, upstream::channels::ChannelCache,
};

/// A service that is always watched: readiness needs one to see that the registry responds.
const OWN_SERVICE: &str = "gateway";

/// One version of the configuration, and the state that depends on it.
pub(crate) struct Settings {
    pub(crate) config: GatewayConfig,
    pub(crate) rates: RateLimits,
    pub(crate) channels: ChannelCache,
    pub(crate) layers: Layers,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Settings").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Default for Settings {
    /// The settings of a gateway without a file.
    fn default() -> Self {
        let rates = RateLimits::new([]);
        Self {
            rates,
            channels: ChannelCache::default(),
            layers: Layers::default(),
            config: GatewayConfig::default(),
        }
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

    /// Reads a file's text; the files that it names are relative to `directory`. Keeps what clients
    /// have used of their rates under the `previous` settings.
    fn parse(text: &str, directory: &Path, previous: Option<&Self>) -> Result<Self, ConfigErrors> {
        if is_empty(text) {
            let message = "the file has no settings; to run without any, write `implicit = true`";
            return Err(ConfigError::of_file(message).into());
        }
        let config = GatewayConfig::parse(text, directory)?;
        let rates = config
            .routes
            .routes()
            .iter()
            .filter_map(|route| Some((route.name().as_str().to_owned(), route.rate?)));
        let rates = match previous {
            Some(previous) => previous.rates.changed(rates),
            None => RateLimits::new(rates),
        };
        let layers = Layers::new(&config);
        Ok(Self { rates, channels: ChannelCache::default(), layers, config })
    }

    /// Returns the services of the routes, which are watched from the start.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        let routes = self.config.routes.routes().iter();
        routes.map(|route| route.service.as_str()).chain([OWN_SERVICE])
    }

    /// Returns the greatest size of a request's body, in bytes.
    pub(crate) fn body_max(&self) -> Option<u64> {
        self.config.limits.body
    }
}

/// Returns whether a file has no key. It may be being written in place, or cut off by a full disk.
fn is_empty(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
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
