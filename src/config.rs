//! The server's configuration: a flag overrides the environment, which overrides the file.
//! Invariant: a configuration with an error never starts a server, and all errors are reported.

use std::{
    fmt::Display,
    fs,
    net::SocketAddr,
    ops::Bound,
    path::{Path, PathBuf},
    str::FromStr,
};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use waypost_config::{
    ConfigErrors, Invalid, Section, decode, parse,
    value::{Value, duration, from_str, integer, invalid, string},
};
use waypost_serving::telemetry::LogFormat;

use crate::model::{LeaseId, Limits, Name};

/// With TLS callers prove their names, and without a policy no name may do anything.
const TLS_WITHOUT_POLICY: &str = "--tls needs --policy, a file with the rights of those callers";

/// The configuration of a server. [`Config::default`] serves on `127.0.0.1:7510`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on; port 0 picks one.
    pub listen: SocketAddr,
    /// The file to write the bound address to.
    pub port_file: Option<PathBuf>,
    /// The directory of the disk store; the memory store does not use it.
    pub data_dir: PathBuf,
    /// The storage backend.
    pub store: StoreKind,
    /// The folder with `tls.crt`, `tls.key` and `ca.crt`; `None`: clear text.
    pub tls: Option<PathBuf>,
    /// The file with the rights of callers; `None`: every caller may do everything.
    pub policy: Option<PathBuf>,
    /// Lets everyone in who reaches the port, on any address.
    pub insecure: bool,
    /// The file of audit records; `None`: they go to the log, if there is a policy.
    pub audit: Option<PathBuf>,
    /// The log levels, in the filter syntax of `tracing-subscriber`.
    pub log: String,
    /// The log format; `None`: pretty on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// The limits of the registry.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7510)),
            port_file: None,
            data_dir: PathBuf::from("./waypost-data"),
            store: StoreKind::Disk,
            tls: None,
            policy: None,
            insecure: false,
            audit: None,
            log: "info".to_owned(),
            log_format: None,
            limits: Limits::default(),
        }
    }
}

/// A storage backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// Durable, in [`Config::data_dir`].
    Disk,
    /// Lost on restart.
    Memory,
}

impl FromStr for StoreKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "disk" => Ok(Self::Disk),
            "memory" => Ok(Self::Memory),
            "etcd" => Err("is not built into this version, which has `disk` and `memory`"),
            _ => Err("must be disk, memory or etcd"),
        }
    }
}

/// The values of flags and environment, as text; `None`: not set.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`, `WAYPOST_CONFIG`.
    pub config: Option<PathBuf>,
    /// `--listen`, `WAYPOST_LISTEN`.
    pub listen: Option<String>,
    /// `--port-file`.
    pub port_file: Option<PathBuf>,
    /// `--data-dir`, `WAYPOST_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `--store`, `WAYPOST_STORE`.
    pub store: Option<String>,
    /// `--tls`, `WAYPOST_TLS`.
    pub tls: Option<PathBuf>,
    /// `--policy`, `WAYPOST_POLICY`.
    pub policy: Option<PathBuf>,
    /// `--insecure`.
    pub insecure: bool,
    /// `--audit`, `WAYPOST_AUDIT`.
    pub audit: Option<PathBuf>,
    /// `--log`, `WAYPOST_LOG`.
    pub log: Option<String>,
    /// `--log-format`, `WAYPOST_LOG_FORMAT`.
    pub log_format: Option<String>,
}

/// All errors of a configuration: of the file, then of flags and environment.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid configuration, {} error(s):\n  {}", .0.len(), .0.join("\n  "))]
pub struct InvalidConfig(pub Vec<String>);

impl Config {
    /// Reads the file, if one is named, and applies flags and environment.
    pub fn load(overrides: Overrides) -> Result<Self, InvalidConfig> {
        let mut errors = Vec::new();
        let mut config = Self::default();
        if let Some(path) = &overrides.config {
            match read_file(path) {
                Ok(read) => config = read,
                Err(read) => errors.extend(read),
            }
        }
        config.apply(overrides, &mut errors);
        if errors.is_empty() { Ok(config) } else { Err(InvalidConfig(errors)) }
    }

    fn read(file: &mut Section<'_>) -> Result<Self, Invalid> {
        let default = Self::default();
        let listen = file.read("listen", from_str);
        let store = file.read("store", from_str);
        let data_dir = file.read("data_dir", from_str);
        let port_file = file.read("port_file", from_str);
        let tls = file.read("tls", from_str);
        let policy = file.read("policy", from_str);
        let audit = file.read("audit", from_str);
        let log = file.read("log", log_filter);
        let log_format = file.read("log_format", from_str);
        let limits = file.table("limits", read_limits);
        Ok(Self {
            listen: listen?.unwrap_or(default.listen),
            port_file: port_file?,
            data_dir: data_dir?.unwrap_or(default.data_dir),
            store: store?.unwrap_or(default.store),
            tls: tls?,
            policy: policy?,
            insecure: false,
            audit: audit?,
            log: log?.unwrap_or(default.log),
            log_format: log_format?,
            limits: limits?.unwrap_or(default.limits),
        })
    }

    fn apply(&mut self, overrides: Overrides, errors: &mut Vec<String>) {
        apply(&mut self.listen, "--listen", overrides.listen, errors);
        apply(&mut self.store, "--store", overrides.store, errors);
        if let Some(filter) = overrides.log {
            if let Err(message) = check_log_filter(&filter) {
                errors.push(format!("--log: {message}"));
            }
            self.log = filter;
        }
        if let Some(format) = overrides.log_format {
            match format.parse() {
                Ok(format) => self.log_format = Some(format),
                Err(reason) => errors.push(format!("--log-format: '{format}' {reason}")),
            }
        }
        self.port_file = overrides.port_file.or(self.port_file.take());
        self.tls = overrides.tls.or(self.tls.take());
        self.policy = overrides.policy.or(self.policy.take());
        self.insecure = overrides.insecure;
        self.audit = overrides.audit.or(self.audit.take());
        if self.tls.is_some() && self.policy.is_none() {
            errors.push(TLS_WITHOUT_POLICY.to_owned());
        }
        self.data_dir = overrides.data_dir.unwrap_or_else(|| self.data_dir.clone());
    }
}

/// Reads `[limits]`. The greatest values are bounds of the design.
fn read_limits(section: &mut Section<'_>) -> Result<Limits, Invalid> {
    use Bound::{Included, Unbounded};
    let mut limits = Limits::default();
    let mut outcome = Ok(());
    for (key, limit, max) in [
        ("name_bytes_max", &mut limits.name_bytes_max, Included(Name::BYTES_MAX)),
        ("id_bytes_max", &mut limits.id_bytes_max, Unbounded),
        ("host_bytes_max", &mut limits.host_bytes_max, Included(253)),
        ("ports_max", &mut limits.ports_max, Unbounded),
        ("metadata_entries_max", &mut limits.metadata_entries_max, Unbounded),
        ("metadata_key_bytes_max", &mut limits.metadata_key_bytes_max, Unbounded),
        ("metadata_value_bytes_max", &mut limits.metadata_value_bytes_max, Unbounded),
        ("metadata_bytes_max", &mut limits.metadata_bytes_max, Unbounded),
        ("message_bytes_max", &mut limits.message_bytes_max, Included(1 << 30)),
        ("heartbeat_leases_max", &mut limits.heartbeat_leases_max, Unbounded),
        ("watch_services_max", &mut limits.watch_services_max, Unbounded),
        ("filter_entries_max", &mut limits.filter_entries_max, Unbounded),
        ("instances_max", &mut limits.instances_max, Included(LeaseId::SLOTS)),
        ("connections_max", &mut limits.connections_max, Unbounded),
        ("streams_max", &mut limits.streams_max, Included(1 << 24)),
        ("queued_writes_max", &mut limits.queued_writes_max, Included(1 << 24)),
        ("log_changes_max", &mut limits.log_changes_max, Unbounded),
        ("log_bytes_max", &mut limits.log_bytes_max, Unbounded),
    ] {
        match section.read(key, |value| integer(value, (Included(1), max))) {
            Ok(value) => *limit = value.unwrap_or(*limit),
            Err(Invalid) => outcome = Err(Invalid),
        }
    }
    let hold = section.read("protection_hold_max", duration)?;
    limits.protection_hold_max = hold.unwrap_or(limits.protection_hold_max);
    outcome.map(|()| limits)
}

/// Returns the errors with the file's name.
fn read_file(path: &Path) -> Result<Config, Vec<String>> {
    let file = path.display();
    let bytes = fs::read(path).map_err(|error| vec![format!("{file}: cannot be read: {error}")])?;
    let parsed =
        decode(&bytes).map_err(ConfigErrors::from).and_then(|text| parse(text, Config::read));
    parsed.map_err(|errors| errors.0.iter().map(|error| format!("{file}: {error}")).collect())
}

fn log_filter(value: Value<'_>) -> Result<String, String> {
    let filter = string(value)?;
    check_log_filter(&filter).map(|()| filter)
}

fn check_log_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(|_| ()).map_err(|error| invalid(filter, &error))
}

fn apply<T: FromStr<Err: Display>>(
    value: &mut T,
    flag: &str,
    text: Option<String>,
    errors: &mut Vec<String>,
) {
    let Some(text) = text else { return };
    match text.parse() {
        Ok(parsed) => *value = parsed,
        Err(reason) => errors.push(format!("{flag}: '{text}' {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(text: &str, overrides: Overrides) -> Result<Config, InvalidConfig> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("the file can be written");
        Config::load(Overrides { config: Some(file.path().into()), ..overrides })
    }

    #[test]
    fn flag_overrides_the_file_and_the_file_the_default() {
        let text = "listen = '127.0.0.1:1'\nlog = 'warn'\n[limits]\nid_bytes_max = 7\n\
                    protection_hold_max = '90s'\n";
        let listen = Some("127.0.0.1:2".to_owned());
        let config = load(text, Overrides { listen, ..Overrides::default() }).expect("valid");
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.log, "warn");
        assert_eq!(config.limits.id_bytes_max, 7);
        assert_eq!(config.limits.protection_hold_max, Duration::from_secs(90));
        assert_eq!(config.limits.host_bytes_max, 253);
        assert_eq!(Config::load(Overrides::default()), Ok(Config::default()));
        assert_eq!(load("", Overrides::default()), Ok(Config::default()));
    }

    #[test]
    fn all_errors_are_reported_with_their_lines() {
        let text = "listen = 'here'\nstore = 7\nmiss = 1\n[limits]\nid_bytes_max = 0\nother = 2\n\
                    host_bytes_max = 254\nname_bytes_max = 1025\nprotection_hold_max = 'long'\n";
        let log = Some("waypost=loudly".to_owned());
        let error = load(text, Overrides { log, ..Overrides::default() }).expect_err("errors");
        for (shown, expected) in error.0.iter().zip([
            ": line 1: listen: 'here' invalid socket address",
            ": line 2: store: must be a string, and is of type integer",
            ": line 3: miss: is no known key",
            ": line 5: limits.id_bytes_max: '0' must be 1 or more",
            ": line 6: limits.other: is no known key",
            ": line 7: limits.host_bytes_max: '254' must be 1 to 253",
            ": line 8: limits.name_bytes_max: '1025' must be 1 to 1024",
            ": line 9: limits.protection_hold_max: 'long' must be a time",
            "--log: 'waypost=loudly' ",
        ]) {
            assert!(shown.contains(expected), "{shown}, not {expected}");
        }
        assert_eq!(error.0.len(), 9, "{error}");
    }

    #[test]
    fn tls_needs_a_policy() {
        let tls = Some(PathBuf::from("identity"));
        for loaded in [
            load("", Overrides { tls, ..Overrides::default() }),
            load("tls = 'identity'", Overrides::default()),
        ] {
            assert_eq!(loaded.expect_err("an error").0, [TLS_WITHOUT_POLICY]);
        }
    }

    #[test]
    fn file_that_is_not_toml_is_reported_with_its_line() {
        let error = load("listen = 'a'\nwhat\n", Overrides::default()).expect_err("no TOML");
        assert!(error.0[0].contains("line 2"), "{error}");
    }
}
