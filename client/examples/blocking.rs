//! A program without async code: plain threads pick an instance for each request and send it over a
//! plain socket. The client's own tasks (its watch, its heartbeats) run on one thread in the
//! background.
//!
//! ```sh
//! blocking [--registry http://127.0.0.1:7510]
//! ```
//! Without a registry it uses one in memory. It starts three instances of a service, one of which
//! accepts no connection, and makes 300 calls on 3 threads. It ends with exit code 1 where a call
//! failed.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpSocket,
    runtime::{Builder, Runtime},
};
use waypost_client::{Client, Outcome, PickContext, Registered, Registration, Service, fake};

const THREADS: usize = 3;
const CALLS_A_THREAD: usize = 100;
/// The longest that any step of a call takes.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most instances that a call tries.
const ATTEMPTS_MAX: usize = 3;

/// An instance: answers each line with its name, on a thread of its own.
fn serve(name: &'static str) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            // A caller that closes early has its response, or wants none.
            let _ = BufReader::new(&stream).read_line(&mut line);
            let _ = writeln!(&stream, "{name} says hello to {}", line.trim());
        }
    });
    Ok(port)
}

/// One request over a socket of its own.
fn ask(address: &str, line: &str) -> io::Result<String> {
    let address = address.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

/// Picks an instance and asks it, and another one where it fails. No runtime, no waiting for one.
fn call(service: &Service, line: &str) -> Result<(String, String), Box<dyn Error + Send + Sync>> {
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let pick = service.pick(&PickContext::new())?;
        let id = pick.instance().id.clone();
        let began = Instant::now();
        let answer = ask(pick.address(), line);
        let outcome = match &answer {
            Ok(_) => Outcome::Success,
            // It is left alone at once: the next attempt goes elsewhere.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Outcome::Unreachable,
            Err(_) => Outcome::Failure,
        };
        pick.report(outcome, began.elapsed());
        match answer {
            Ok(answer) => return Ok((id, answer)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| "no attempt".into(), Into::into))
}

/// The results of one thread's calls.
fn calls(service: &Service, thread: usize) -> (BTreeMap<String, usize>, usize) {
    let (mut answered, mut failed) = (BTreeMap::new(), 0);
    for number in 0..CALLS_A_THREAD {
        match call(service, &format!("call {number} of thread {thread}")) {
            Ok((id, _)) => *answered.entry(id).or_default() += 1,
            Err(error) => {
                eprintln!("call {number} of thread {thread} failed: {error}");
                failed += 1;
            }
        }
    }
    (answered, failed)
}

/// Registers three instances, the last one of which takes no connection while the socket lives.
fn start(
    runtime: &Runtime,
    client: &Client,
) -> Result<(Vec<Registered>, TcpSocket), Box<dyn Error>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let gone = socket.local_addr()?.port();
    let mut registered = Vec::new();
    for (id, port) in [("a", serve("a")?), ("b", serve("b")?), ("gone", gone)] {
        let registration = Registration::new("hello", "127.0.0.1", port).id(id);
        registered.push(runtime.block_on(client.register(registration))?);
    }
    Ok((registered, socket))
}

fn client() -> Result<Client, Box<dyn Error>> {
    let mut words = env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (None, _) => Ok(fake::Registry::new().client()),
        (Some("--registry"), Some(url)) => Ok(Client::new(url)?),
        (Some(flag), _) => Err(format!("unknown flag, or one without a value: {flag}").into()),
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // The one thread that all of the client's tasks run on.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let client = client()?;
    let (registered, _socket) = start(&runtime, &client)?;
    // Begins a task: that needs to know the runtime. Picks don't.
    let service = runtime.block_on(async { client.service("hello") });
    runtime.block_on(async {
        let mut changes = service.changes();
        while changes.next().await.is_some_and(|snapshot| snapshot.serving() < registered.len()) {}
    });

    let (mut answered, mut failed) = (BTreeMap::<String, usize>::new(), 0);
    thread::scope(|scope| {
        let service = &service;
        let start = |thread| scope.spawn(move || calls(service, thread));
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        for thread in threads {
            let (counts, failures) = thread.join().unwrap_or_default();
            for (id, count) in counts {
                *answered.entry(id).or_default() += count;
            }
            failed += failures;
        }
    });
    for registered in registered {
        runtime.block_on(registered.deregister())?;
    }
    for (id, count) in &answered {
        println!("{id} answered {count}");
    }
    println!("{failed} of {} calls failed", THREADS * CALLS_A_THREAD);
    let all = answered.values().sum::<usize>() == THREADS * CALLS_A_THREAD;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
