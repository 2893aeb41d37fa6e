//! Arguments that several commands share, and the parsers of their values. Everything past here is
//! valid; only the files of credentials are read.

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

use clap::Args;
use waypost_client::{Credentials, TokenFile, proto::Filter};

use super::{
    error::CommandError,
    output::OutputFormat,
    remote::{RegistryAccess, RegistryUrl},
};
use crate::model::Host;

/// The registry where the arguments name none: with an identity folder, and without.
const REGISTRY_DEFAULT_TLS: &str = "https://127.0.0.1:7510";
const REGISTRY_DEFAULT: &str = "http://127.0.0.1:7510";

/// The registry and the output format.
#[derive(Clone, Debug, Args)]
pub(crate) struct RegistryArguments {
    /// Registry URL, https://HOST:PORT, or http://HOST:PORT for one without TLS; several addresses,
    /// separated by commas, are tried in this order [default: http://127.0.0.1:7510, with --tls
    /// https://127.0.0.1:7510].
    #[arg(long = "registry", value_name = "URL", env = "WAYPOST_REGISTRY", global = true)]
    url: Option<RegistryUrl>,
    /// Identity folder for connections to the registry: ca.crt, and tls.crt with tls.key unless a
    /// token names the caller.
    #[arg(long, value_name = "DIR", env = "WAYPOST_TLS", global = true)]
    tls: Option<PathBuf>,
    /// File with the token that requests carry.
    #[arg(long, value_name = "FILE", env = "WAYPOST_TOKEN_FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value = "table", global = true)]
    pub(crate) output: OutputFormat,
}

impl RegistryArguments {
    /// Returns the registry with its credentials. Reads the files.
    pub(crate) fn access(&self) -> Result<RegistryAccess, CommandError> {
        let default = if self.tls.is_some() { REGISTRY_DEFAULT_TLS } else { REGISTRY_DEFAULT };
        let url = self.url.clone().unwrap_or_else(|| default.parse().expect("a valid URL"));
        let mut credentials = None;
        if let Some(folder) = &self.tls {
            let read = Credentials::folder(folder);
            credentials = Some(read.map_err(|error| CommandError::configuration(&error))?);
        }
        if let Some(file) = &self.token_file {
            let token = TokenFile::open(file);
            let token = token.map_err(|error| CommandError::configuration(&error))?;
            credentials = Some(credentials.unwrap_or_default().token(token));
        }
        RegistryAccess::new(url, credentials)
    }
}

/// The data directory and the output format.
#[derive(Clone, Debug, Args)]
pub(crate) struct StoreArguments {
    /// Data directory of the disk store.
    #[arg(long, value_name = "DIR", env = "WAYPOST_DATA_DIR", default_value = "./waypost-data")]
    pub(crate) data_dir: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: OutputFormat,
}

/// The namespace.
#[derive(Clone, Debug, Args)]
pub(crate) struct NamespaceArgument {
    /// Namespace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
}

/// The filter of instances: every given option must match.
#[derive(Clone, Debug, Args)]
pub(crate) struct FilterArguments {
    /// Only instances in this zone; may be repeated to allow several.
    #[arg(long = "zone", value_name = "ZONE")]
    zones: Vec<String>,
    /// Only instances of this version; may be repeated to allow several.
    #[arg(long = "version", value_name = "VERSION")]
    versions: Vec<String>,
    /// Only instances with this metadata entry; may be repeated to require several.
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<MetadataEntry>,
}

impl From<FilterArguments> for Filter {
    fn from(arguments: FilterArguments) -> Self {
        let FilterArguments { zones, versions, metadata } = arguments;
        let metadata =
            metadata.into_iter().map(|MetadataEntry { key, value }| (key, value)).collect();
        Self { zones, versions, metadata }
    }
}

/// The service and id of an instance.
#[derive(Clone, Debug, Args)]
pub(crate) struct InstanceArguments {
    /// Service.
    pub(crate) service: String,
    /// Instance id.
    pub(crate) id: String,
}

/// `HOST:PORT`, with an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| "must be HOST:PORT".to_owned())?;
        let port = parse_port(port)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            Some(address) if address.contains('%') => {
                return Err("an IPv6 address with a zone (%) is valid on this machine only: \
                            use an address without one"
                    .to_owned());
            }
            Some(_) => return Err("the host in brackets must be an IPv6 address".to_owned()),
            None if host.is_empty() => return Err("the host before the port is empty".to_owned()),
            None if host.contains([':', '[', ']']) => {
                return Err("an IPv6 address must be in brackets: [::1]:80".to_owned());
            }
            None => host,
        };
        // The registry checks the length against its own limit.
        let read = Host::parse(host, usize::MAX).map_err(|error| format!("the host {error}"))?;
        Ok(Self { host: read.as_str().to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

/// `KEY=VALUE`; the value may be empty or contain `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataEntry {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for MetadataEntry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("must be KEY=VALUE"),
        }
    }
}

/// `NAME=PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPort {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl FromStr for NamedPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, port)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), port: parse_port(port)? })
            }
            _ => Err("must be NAME=PORT"),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("the port must be a number from 1 to 65535"),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;
    use crate::Config;

    #[test]
    fn data_directory_defaults_to_the_servers() {
        let command = StoreArguments::augment_args(Command::new("check"));
        // Independent of the environment of the tests.
        let command = command.mut_arg("data_dir", |argument| argument.env(None));
        let matches = command.try_get_matches_from(["check"]).unwrap();
        let arguments = StoreArguments::from_arg_matches(&matches).unwrap();
        assert_eq!(arguments.data_dir, Config::default().data_dir);
    }

    #[test]
    fn addresses_are_parsed() {
        let read = |text: &str| {
            text.parse::<HostPort>().map(|HostPort { host, port }| format!("{host} {port}")).ok()
        };
        assert_eq!(read("10.0.0.7:8080").as_deref(), Some("10.0.0.7 8080"));
        assert_eq!(read("orders.internal:1").as_deref(), Some("orders.internal 1"));
        assert_eq!(read("[::1]:80").as_deref(), Some("::1 80"));
        assert_eq!(read("123456789012:1").as_deref(), Some("123456789012 1"));
        for bad in ["", "h", ":80", "h:", "h:0", "h:65536", "h:-1", "::1:80", "[h]:80", "[::1]"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for unreachable in ["0.0.0.0:80", "[::]:80", "[ff02::1]:80", "0x7f.1:80", "127.1:80"] {
            assert_eq!(read(unreachable), None, "{unreachable}");
        }
    }

    #[test]
    fn entries_are_parsed() {
        let read =
            |text: &str| text.parse::<MetadataEntry>().map(|entry| (entry.key, entry.value)).ok();
        assert_eq!(read("a=b=c"), Some(("a".into(), "b=c".into())));
        assert_eq!(read("a="), Some(("a".into(), String::new())));
        assert_eq!((read("a"), read("=b"), read("")), (None, None, None));
    }

    #[test]
    fn named_ports_are_parsed() {
        let read = |text: &str| text.parse::<NamedPort>().map(|port| (port.name, port.port)).ok();
        assert_eq!(read("metrics=9090"), Some(("metrics".into(), 9090)));
        assert_eq!(
            (read("metrics"), read("=1"), read("a=0"), read("a=x")),
            (None, None, None, None)
        );
    }
}
