//! Calls the greeters in turn, and prints which one responded. Greeters may come and go.
//!
//! ```sh
//! caller --registry http://127.0.0.1:7510 --name greeter [--count N] [--interval-ms N] \
//!     [--secure FOLDER]
//! ```
//! Ends by itself after `--count` calls, with exit code 1 where any of them failed.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{collections::BTreeMap, env, error::Error, process::ExitCode, time::Duration};

use waypost_client::{Client, Credentials};
use waypost_testing::greeter::{GreetRequest, greeter_client::GreeterClient};

struct Flags {
    registry: String,
    /// The identity folder for a registry with TLS.
    secure: Option<String>,
    name: String,
    count: Option<u64>,
    interval: Duration,
}

fn flags() -> Result<Flags, Box<dyn Error>> {
    let mut flags = Flags {
        registry: env::var("WAYPOST_REGISTRY").unwrap_or("http://127.0.0.1:7510".into()),
        secure: None,
        name: "greeter".into(),
        count: None,
        interval: Duration::from_millis(500),
    };
    let mut words = env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--registry" => flags.registry = value,
            "--secure" => flags.secure = Some(value),
            "--name" => flags.name = value,
            "--count" => flags.count = Some(value.parse()?),
            "--interval-ms" => flags.interval = Duration::from_millis(value.parse()?),
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    Ok(flags)
}

/// A client in clear text, or over TLS with the certificate in a folder.
fn client(registry: String, secure: Option<String>) -> Result<Client, Box<dyn Error>> {
    let builder = Client::builder().registry(registry);
    Ok(match secure {
        Some(folder) => builder.credentials(Credentials::folder(folder)?).build()?,
        None => builder.build()?,
    })
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let flags = flags()?;
    let mut greeter =
        GreeterClient::new(client(flags.registry, flags.secure)?.channel(&flags.name));
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = 0_u64;
    let mut call = 0;
    while flags.count.is_none_or(|count| call < count) {
        call += 1;
        match greeter.greet(GreetRequest { name: format!("caller {call}") }).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                println!("{} from {}", answer.greeting, answer.instance);
                *answers.entry(answer.instance).or_default() += 1;
            }
            Err(status) => {
                eprintln!("call {call} failed: {:?}: {}", status.code(), status.message());
                failed += 1;
            }
        }
        tokio::time::sleep(flags.interval).await;
    }
    for (instance, count) in &answers {
        println!("{instance} answered {count}");
    }
    println!("{failed} of {call} calls failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
