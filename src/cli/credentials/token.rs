//! `waypost token`: static tokens for the policy.
//!
//! Invariant: the token is printed once, to standard output, and stored nowhere.

use std::time::Duration;

use clap::{Args, Subcommand};
use humantime::{format_rfc3339_seconds, parse_duration};
use serde::Serialize;
use waypost_auth::policy::NewToken;

use super::now;
use crate::{
    cli::{
        error::CommandError,
        output::{OutputFormat, print, print_json},
    },
    model::{Name, NameError},
};

/// The greatest length of a token's name in a policy.
const NAME_BYTES_MAX: usize = 128;

/// The longest validity: 10 years.
const EXPIRES_MAX: Duration = Duration::from_secs(3652 * 24 * 60 * 60);

/// Make static tokens.
#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    New(NewTokenArguments),
}

/// Make a token, and print it once with its entry for the policy.
///
/// The policy has only the token's SHA-256. Rules name its holder `token/NAME`. Keep the token in a
/// file that its user alone can read.
#[derive(Debug, Args)]
struct NewTokenArguments {
    /// Name of the token, which no other one of the policy has.
    #[arg(value_parser = parse_name)]
    name: Name,
    /// Validity from now on.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_expires)]
    expires: Duration,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct TokenJson<'a> {
    name: &'a str,
    principal: String,
    sha256: String,
    expires: String,
    token: &'a str,
}

pub(crate) fn run(arguments: &TokenArguments) -> Result<(), CommandError> {
    let TokenCommand::New(NewTokenArguments { name, expires, output }) = &arguments.command;
    let token = NewToken::generate()?;
    let (name, sha256) = (name.as_str(), token.sha256());
    let expires = format_rfc3339_seconds(now() + *expires).to_string();
    match output {
        OutputFormat::Table => print(&format_args!(
            "[[token]]\n\
             name = \"{name}\"\n\
             sha256 = \"{sha256}\"\n\
             expires = {expires}\n\
             \n\
             token, shown this once: {}\n",
            token.text()
        )),
        OutputFormat::Json => print_json(&TokenJson {
            name,
            principal: format!("token/{name}"),
            sha256,
            expires,
            token: token.text(),
        }),
    }
}

fn parse_name(text: &str) -> Result<Name, NameError> {
    Name::parse(text, NAME_BYTES_MAX)
}

fn parse_expires(text: &str) -> Result<Duration, String> {
    let expires = parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=EXPIRES_MAX).contains(&expires) {
        Ok(expires)
    } else {
        Err("must be 1s to 3652d".to_owned())
    }
}
