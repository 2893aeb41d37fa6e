//! The server's configuration: a flag beats the environment beats the file beats the default. All
//! mistakes are found at once.

use std::{
    fmt::Display,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use toml::{Table, Value};
use tracing_subscriber::EnvFilter;
use waypost_serving::telemetry::LogFormat;

use crate::model::Limits;

/// What a server needs to know. [`Config::default`] serves on `127.0.0.1:7510`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on; port 0 picks one.
    pub listen: SocketAddr,
    /// The file to write the bound address to.
    pub port_file: Option<PathBuf>,
    /// The directory of the embedded store; the memory store leaves it alone.
    pub data_dir: PathBuf,
    /// What keeps the registry.
    pub store: StoreKind,
    /// What to log, in the filter syntax of `tracing-subscriber`.
    pub log: String,
    /// How to log; `None`: pretty on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// How much of everything is taken.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7510)),
            port_file: None,
            data_dir: PathBuf::from("./waypost-data"),
            store: StoreKind::Disk,
            log: "info".to_owned(),
            log_format: None,
            limits: Limits::default(),
        }
    }
}

/// What keeps the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// An embedded store in [`Config::data_dir`].
    Disk,
    /// Nothing: the registry lives as long as the process.
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

/// What flags and environment say, as text; `None`: nothing.
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
    /// `--log`, `WAYPOST_LOG`.
    pub log: Option<String>,
    /// `--log-format`, `WAYPOST_LOG_FORMAT`.
    pub log_format: Option<String>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the configuration has {} mistake(s):\n  {}", .0.len(), .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the file, if one is named, and puts flags and environment above it.
    pub fn load(overrides: Overrides) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let mut config = Self::default();
        if let Some(path) = &overrides.config {
            match read_file(path) {
                Ok(table) => {
                    config.read_table(table, &path.display().to_string(), &mut mistakes);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        config.read_overrides(overrides, &mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigError(mistakes)) }
    }

    fn read_overrides(&mut self, overrides: Overrides, mistakes: &mut Vec<String>) {
        override_with(&mut self.listen, "--listen", overrides.listen, mistakes);
        override_with(&mut self.store, "--store", overrides.store, mistakes);
        if let Some(levels) = overrides.log {
            check_levels("--log", &levels, mistakes);
            self.log = levels;
        }
        if let Some(format) = overrides.log_format {
            match format.parse() {
                Ok(format) => self.log_format = Some(format),
                Err(reason) => mistakes.push(mistake("--log-format", &format, reason)),
            }
        }
        self.port_file = overrides.port_file.or(self.port_file.take());
        self.data_dir = overrides.data_dir.unwrap_or_else(|| self.data_dir.clone());
    }

    fn read_table(&mut self, table: Table, file: &str, mistakes: &mut Vec<String>) {
        let mut section = Section { table, place: format!("{file}: "), mistakes };
        section.parse("listen", &mut self.listen);
        section.parse("store", &mut self.store);
        if let Some(path) = section.take::<String>("data_dir") {
            self.data_dir = path.into();
        }
        if let Some(path) = section.take::<String>("port_file") {
            self.port_file = Some(path.into());
        }
        if let Some(levels) = section.take::<String>("log") {
            check_levels(&format!("{}log", section.place), &levels, section.mistakes);
            self.log = levels;
        }
        let mut format = LogFormat::Json;
        if section.parse("log_format", &mut format) {
            self.log_format = Some(format);
        }
        let limits = section.take::<Table>("limits");
        section.finish();
        if let Some(table) = limits {
            read_limits(&mut self.limits, table, format!("{file}: limits."), mistakes);
        }
    }
}

/// The limits by their names in the file. Bounds that the design sets are the largest values.
fn read_limits(limits: &mut Limits, table: Table, place: String, mistakes: &mut Vec<String>) {
    let mut section = Section { table, place, mistakes };
    let mut hold = humantime::Duration::from(limits.protection_hold_max);
    section.parse("protection_hold_max", &mut hold);
    limits.protection_hold_max = hold.into();
    let unbounded = usize::MAX;
    for (key, limit, largest) in [
        ("name_bytes_max", &mut limits.name_bytes_max, unbounded),
        ("id_bytes_max", &mut limits.id_bytes_max, unbounded),
        ("host_bytes_max", &mut limits.host_bytes_max, 253),
        ("ports_max", &mut limits.ports_max, unbounded),
        ("metadata_entries_max", &mut limits.metadata_entries_max, unbounded),
        ("metadata_key_bytes_max", &mut limits.metadata_key_bytes_max, unbounded),
        ("metadata_value_bytes_max", &mut limits.metadata_value_bytes_max, unbounded),
        ("metadata_bytes_max", &mut limits.metadata_bytes_max, unbounded),
        ("message_bytes_max", &mut limits.message_bytes_max, 1 << 30),
        ("heartbeat_leases_max", &mut limits.heartbeat_leases_max, unbounded),
        ("watch_services_max", &mut limits.watch_services_max, unbounded),
        ("filter_entries_max", &mut limits.filter_entries_max, unbounded),
        ("instances_max", &mut limits.instances_max, crate::model::LeaseId::SLOTS),
        ("connections_max", &mut limits.connections_max, unbounded),
        ("streams_max", &mut limits.streams_max, 1 << 24),
        ("queued_writes_max", &mut limits.queued_writes_max, 1 << 24),
        ("log_changes_max", &mut limits.log_changes_max, unbounded),
        ("log_bytes_max", &mut limits.log_bytes_max, unbounded),
    ] {
        let Some(value) = section.take::<u64>(key) else { continue };
        match usize::try_from(value) {
            Ok(value) if (1..=largest).contains(&value) => *limit = value,
            _ => {
                let reason = format!("must be 1 to {largest}");
                section.mistakes.push(mistake(&format!("{}{key}", section.place), &value, reason));
            }
        }
    }
    section.finish();
}

fn read_file(path: &Path) -> Result<Table, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{}: can't be read: {error}", path.display()))?;
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("{}: line {line}: {}", path.display(), error.message())
    })
}

fn check_levels(place: &str, levels: &str, mistakes: &mut Vec<String>) {
    if let Err(error) = EnvFilter::try_new(levels) {
        mistakes.push(mistake(place, &levels, error));
    }
}

fn override_with<T: FromStr<Err: Display>>(
    value: &mut T,
    flag: &str,
    text: Option<String>,
    mistakes: &mut Vec<String>,
) {
    let Some(text) = text else { return };
    match text.parse() {
        Ok(parsed) => *value = parsed,
        Err(reason) => mistakes.push(mistake(flag, &text, reason)),
    }
}

fn mistake(place: &str, value: &dyn Display, reason: impl Display) -> String {
    format!("{place}: '{value}' {reason}")
}

/// A table whose keys are taken one by one; what is left over is a mistake.
struct Section<'a> {
    table: Table,
    place: String,
    mistakes: &'a mut Vec<String>,
}

impl Section<'_> {
    /// The value of a key; one of another type is a mistake.
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value: Value = self.table.remove(key)?;
        let read: Result<T, _> = Deserialize::deserialize(value);
        read.map_err(|error| {
            self.mistakes.push(format!("{}{key}: {}", self.place, error.message()));
        })
        .ok()
    }

    /// Puts the value of a key, read from its text. Says whether it did.
    fn parse<T: FromStr<Err: Display>>(&mut self, key: &str, value: &mut T) -> bool {
        let Some(text) = self.take::<String>(key) else { return false };
        match text.parse() {
            Ok(parsed) => *value = parsed,
            Err(reason) => {
                self.mistakes.push(mistake(&format!("{}{key}", self.place), &text, reason));
                return false;
            }
        }
        true
    }

    fn finish(self) {
        for key in self.table.keys() {
            self.mistakes.push(format!("{}{key}: is no known key", self.place));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(text: &str, overrides: Overrides) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("the file can be written");
        Config::load(Overrides { config: Some(file.path().into()), ..overrides })
    }

    #[test]
    fn a_flag_beats_the_file_beats_the_default() {
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
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "listen = 'here'\nstore = 7\nmiss = 1\n[limits]\nid_bytes_max = 0\nother = 2\n\
                    protection_hold_max = 'long'\n";
        let log = Some("waypost=loudly".to_owned());
        let error = load(text, Overrides { log, ..Overrides::default() }).expect_err("mistakes");
        for part in [
            "listen: 'here'",
            "store: ",
            "miss: is no",
            "limits.id_bytes_max: '0'",
            "limits.protection_hold_max: 'long'",
            "limits.other: is no",
            "--log: ",
        ] {
            assert!(error.0.iter().any(|mistake| mistake.contains(part)), "{part} in {error}");
        }
        assert_eq!(error.0.len(), 7, "{error}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_with_its_line() {
        let error = load("listen = 'a'\nwhat\n", Overrides::default()).expect_err("no TOML");
        assert!(error.0[0].contains("line 2"), "{error}");
    }
}
