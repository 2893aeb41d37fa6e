//! `waypost ca`: a certificate authority in a directory.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use humantime::format_rfc3339_seconds;
use serde::Serialize;

use super::{now, show};
use crate::{
    cli::{
        error::CommandError,
        escape::escape,
        output::{OutputFormat, print, print_json},
    },
    model::{Host, HostError, Name, ServiceKey},
    pki::{CertificateHolder, IssuedFolder, PkiDirectory, TrustDomain},
};

/// The greatest length of a host name.
const HOST_BYTES_MAX: usize = 253;

/// Create a certificate authority, issue and show certificates.
#[derive(Debug, Args)]
pub(crate) struct CaArguments {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    Init(InitArguments),
    Issue(IssueArguments),
    Show(ShowArguments),
}

/// The directory of the authority.
#[derive(Debug, Args)]
struct DirectoryArgument {
    /// Directory of the authority.
    #[arg(long, value_name = "DIR", default_value = "waypost-pki")]
    dir: PathBuf,
}

/// Create an authority, with certificates for the server and for the operator `admin`.
///
/// Writes `ca.crt`, `ca.key`, `server/`, `admin/` and `policy.toml`, and prints the command that
/// starts the registry with them. By the policy, a workload registers its own service and sees its
/// namespace, operators may do everything, and nobody else anything. Certificates are valid for 90
/// days, the authority for 10 years. Nothing is overwritten.
#[derive(Debug, Args)]
struct InitArguments {
    #[command(flatten)]
    directory: DirectoryArgument,
    /// DNS name or IP address of the registry, beside localhost, 127.0.0.1, ::1 and the name of
    /// this machine; may be repeated.
    #[arg(long = "host", value_name = "NAME", value_parser = parse_host)]
    hosts: Vec<Host>,
    /// Domain of all SPIFFE IDs [default: waypost.internal].
    #[arg(long, value_name = "DOMAIN", conflicts_with = "renew")]
    trust_domain: Option<TrustDomain>,
    /// Renew the certificates of the server and of `admin`. The authority, the policy and the
    /// server's present hosts stay.
    #[arg(long)]
    renew: bool,
}

/// Issue a certificate for the instances of a service, or for an operator.
///
/// Creates a folder with `tls.crt`, `tls.key` and `ca.crt` for `--tls`, in the directory of the
/// authority: `workloads/NAMESPACE/SERVICE` or `operators/NAME`.
#[derive(Debug, Args)]
struct IssueArguments {
    /// Service; with --operator, the name of the operator.
    #[arg(value_name = "SERVICE")]
    name: Name,
    /// Namespace of the service.
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: Name,
    /// Issue a certificate for an operator, who may do everything.
    #[arg(long, conflicts_with = "namespace")]
    operator: bool,
    /// Replace the certificate and the key that are in the folder.
    #[arg(long)]
    renew: bool,
    #[command(flatten)]
    directory: DirectoryArgument,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    output: OutputFormat,
}

/// List all certificates: for whom, until when.
#[derive(Debug, Args)]
struct ShowArguments {
    #[command(flatten)]
    directory: DirectoryArgument,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct IssuedJson<'a> {
    folder: Cow<'a, str>,
    identity: String,
    not_after: String,
}

pub(crate) fn run(arguments: CaArguments) -> Result<(), CommandError> {
    match arguments.command {
        CaCommand::Init(arguments) if arguments.renew => renew(&arguments),
        CaCommand::Init(arguments) => init(arguments),
        CaCommand::Issue(arguments) => issue(arguments),
        CaCommand::Show(arguments) => {
            show::run(&PkiDirectory::new(arguments.directory.dir), arguments.output)
        }
    }
}

fn init(arguments: InitArguments) -> Result<(), CommandError> {
    let InitArguments { directory: DirectoryArgument { dir }, hosts, trust_domain, .. } = arguments;
    let directory = PkiDirectory::new(&dir);
    let domain = trust_domain.unwrap_or_default();
    directory.init(domain.clone(), &hosts, now())?;
    let (server, policy) = (quoted(&directory.server()), quoted(&directory.policy()));
    print(&format_args!(
        "created {}: an authority for {domain}, certificates of the server and of admin, a policy\n\
         start the registry with:\n\
         waypost serve --tls {server} --policy {policy}\n",
        shown(&dir)
    ))
}

fn renew(arguments: &InitArguments) -> Result<(), CommandError> {
    let directory = PkiDirectory::new(&arguments.directory.dir);
    let [server, admin] = directory.renew_initial(&arguments.hosts, now())?;
    print(&format_args!("{}{}", line(&server), line(&admin)))
}

fn issue(arguments: IssueArguments) -> Result<(), CommandError> {
    let IssueArguments { name, namespace, operator, renew, directory, output } = arguments;
    let holder = if operator {
        CertificateHolder::Operator(name)
    } else {
        CertificateHolder::Workload(ServiceKey { namespace, service: name })
    };
    let directory = PkiDirectory::new(directory.dir);
    let issued =
        if renew { directory.renew(&holder, now())? } else { directory.issue(&holder, now())? };
    match output {
        OutputFormat::Table => print(&line(&issued)),
        OutputFormat::Json => print_json(&IssuedJson {
            folder: issued.path.to_string_lossy(),
            identity: issued.certificate.uris.join(" "),
            not_after: format_rfc3339_seconds(issued.certificate.not_after).to_string(),
        }),
    }
}

/// Formats a line for a certificate that was issued.
fn line(issued: &IssuedFolder) -> String {
    let IssuedFolder { path, certificate } = issued;
    let identity = certificate.uris.join(" ");
    let until = format_rfc3339_seconds(certificate.not_after);
    format!("issued {identity} until {until}: {}\n", shown(path))
}

fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// Formats a path as a word of a shell command.
fn quoted(path: &Path) -> String {
    let text = shown(path);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn parse_host(text: &str) -> Result<Host, HostError> {
    Host::parse(text, HOST_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_of_the_shell() {
        assert_eq!(quoted(Path::new("waypost-pki/server")), "waypost-pki/server");
        assert_eq!(quoted(Path::new("a b")), "'a b'");
        assert_eq!(quoted(Path::new("a'b$")), r"'a'\''b$'");
        assert_eq!(quoted(Path::new("")), "''");
    }
}
