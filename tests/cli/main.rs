//! The command line as its users have it: the real program against a real registry process. Waits are
//! for conditions, each with a deadline.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

mod backup;
mod bench;
mod large;
mod reach;
mod readiness;
mod wrapper;

use std::{
    ffi::OsStr,
    fs,
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::transport::Endpoint;
use waypost_client::{
    Client, Instance, Registered, Registration,
    proto::{RegisterRequest, Status, registry_client::RegistryClient},
};

/// Longer than anything takes that goes well.
const DEADLINE: Duration = Duration::from_secs(30);

const PROGRAM: &str = env!("CARGO_BIN_EXE_waypost");

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

fn program<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(PROGRAM);
    // Whatever the environment of the tests says, it is none of theirs.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id().expect("it runs")).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
}

/// A registry in a process of its own.
struct Server {
    process: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Server {
    async fn start() -> Self {
        Self::serve(&["--store", "memory"]).await
    }

    /// One that keeps everything in a directory.
    async fn start_on(data_dir: &Path) -> Self {
        Self::serve(&["--store", "disk", "--data-dir", data_dir.to_str().unwrap()]).await
    }

    async fn serve(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port_file = directory.path().join("port");
        let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
        command.args(arguments).arg("--port-file").arg(&port_file).arg("--log").arg("warn");
        let process = command.current_dir(directory.path()).spawn().unwrap();
        let address = soon("the port file", async {
            loop {
                if let Ok(address) = fs::read_to_string(&port_file) {
                    break address.trim().parse().unwrap();
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        Self { process, directory, address }
    }

    /// Ends it in order.
    async fn stop(mut self) {
        signal(&self.process, Signal::TERM);
        let status = soon("the registry's end", self.process.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs a command to its end.
    async fn run(&self, arguments: &[&str]) -> Finished {
        run(&self.url(), arguments).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// Starts a command that runs until it is told to stop.
    fn start_command(&self, arguments: &[&str]) -> Running {
        Running::start(&self.url(), arguments)
    }

    async fn register(&self, registration: Registration) -> Registered {
        let client = Client::new(self.url()).unwrap();
        soon("a registration", client.register(registration)).await.unwrap()
    }
}

struct Finished {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Finished {
    #[track_caller]
    fn refused(&self, reason: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("waypost: "), "{}", self.stderr);
        assert!(self.stderr.contains(reason), "{}", self.stderr);
    }
}

async fn run(url: &str, arguments: &[&str]) -> Finished {
    finish(program(arguments).env("WAYPOST_REGISTRY", url)).await
}

async fn finish(command: &mut Command) -> Finished {
    let output = soon("the command's end", command.output()).await.unwrap();
    Finished {
        code: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A command that runs.
struct Running {
    process: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let mut command = program(arguments);
        Self::spawn(command.env("WAYPOST_REGISTRY", url).env("WAYPOST", PROGRAM))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, stdout, stderr }
    }

    async fn line(&mut self) -> String {
        let line = soon("a line", self.stdout.next_line()).await.unwrap();
        line.expect("it writes on")
    }

    async fn event(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn error_line(&mut self) -> String {
        let line = soon("a line", self.stderr.next_line()).await.unwrap();
        line.expect("it writes on")
    }

    fn signal(&self, number: Signal) {
        signal(&self.process, number);
    }

    async fn end(mut self) -> (ExitStatus, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        soon("the output's end", async {
            self.stdout.get_mut().read_to_string(&mut stdout).await.unwrap();
            self.stderr.get_mut().read_to_string(&mut stderr).await.unwrap();
        })
        .await;
        (soon("the end", self.process.wait()).await.unwrap(), stdout, stderr)
    }
}

/// An address of the registry behind which it can be away.
struct Gate {
    address: SocketAddr,
    behind: watch::Sender<Option<SocketAddr>>,
    _tasks: JoinSet<()>,
}

impl Gate {
    async fn before(server: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, _) = watch::channel(server);
        let mut tasks = JoinSet::new();
        tasks.spawn(pass(listener, behind.clone()));
        Self { address, behind, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn put(&self, server: Option<SocketAddr>) {
        self.behind.send_replace(server);
    }
}

async fn pass(listener: TcpListener, behind: watch::Sender<Option<SocketAddr>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let mut behind = behind.subscribe();
        connections.spawn(async move {
            let Some(server) = *behind.borrow_and_update() else { return };
            let mut far = TcpStream::connect(server).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = behind.changed() => {}
            }
        });
    }
}

fn orders(id: &str) -> Registration {
    Registration::new("orders", "10.0.0.7", 8080).id(id)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn services_are_listed_with_their_counts() {
    let server = Server::start().await;
    let _a = server.register(orders("a")).await;
    let _b = server.register(orders("b").status(Status::Draining)).await;
    let _c = server.register(Registration::new("billing", "h", 1)).await;
    let table = server.run(&["services"]).await;
    let lines: Vec<_> = table.stdout.lines().map(words).collect();
    let expected = [["SERVICE", "INSTANCES", "UP"], ["billing", "1", "1"], ["orders", "2", "1"]];
    assert_eq!(lines, expected);
    let json = server.json(&["services"]).await;
    assert_eq!(json[1]["name"], "orders");
    assert_eq!((&json[1]["instances"], &json[1]["up"]), (&2.into(), &1.into()));
    let elsewhere = server.json(&["services", "--namespace", "shop"]).await;
    assert_eq!(elsewhere, Value::Array(Vec::new()));
}

#[tokio::test]
async fn more_services_than_a_page_holds_are_all_listed() {
    let server = Server::start().await;
    let client = Client::new(server.url()).unwrap();
    let mut registered = Vec::new();
    for index in 0..1001 {
        let registration = Registration::new(format!("service-{index:04}"), "h", 1);
        registered.push(soon("a registration", client.register(registration)).await.unwrap());
    }
    let json = server.json(&["services"]).await;
    assert_eq!(json.as_array().unwrap().len(), 1001);
    assert_eq!(json[1000]["name"], "service-1000");
}

#[tokio::test]
async fn instances_are_listed_whatever_their_status() {
    let server = Server::start().await;
    let a = orders("a").zone("eu-1a").version("2.4.1").weight(50).port("metrics", 9090);
    let _a = server.register(a.metadata("token", "hunter2")).await;
    let _b = server.register(Registration::new("orders", "::1", 80).id("b")).await;
    let _c = server.register(orders("c").status(Status::Down)).await;
    let table = server.run(&["instances", "orders"]).await.stdout;
    let lines: Vec<_> = table.lines().map(words).collect();
    assert_eq!(lines[0][..4], ["ID", "ADDRESS", "STATUS", "WEIGHT"]);
    assert_eq!(lines[1][..6], ["a", "10.0.0.7:8080", "UP", "50", "eu-1a", "2.4.1"]);
    assert_eq!(lines[1][7], "token");
    assert_eq!(lines[2][..6], ["b", "[::1]:80", "UP", "100", "-", "-"]);
    assert_eq!(lines[3][..3], ["c", "10.0.0.7:8080", "DOWN"]);
    assert!(!table.contains("hunter2"), "values may be secrets: {table}");
    let json = server.json(&["instances", "orders"]).await;
    assert_eq!(json[0]["metadata"]["token"], "hunter2");
    assert_eq!(json[0]["ports"]["metrics"], 9090);
    assert_eq!((&json[2]["status"], &json[2]["id"]), (&"DOWN".into(), &"c".into()));
    let registered_at = json[0]["registered_at"].as_str().unwrap();
    assert!(humantime::parse_rfc3339(registered_at).is_ok(), "{registered_at}");
}

#[tokio::test]
async fn instances_are_filtered() {
    let server = Server::start().await;
    let _a = server.register(orders("a").zone("x").metadata("k", "1=1")).await;
    let _b = server.register(orders("b").zone("y").version("2")).await;
    let _c = server.register(orders("c").zone("z")).await;
    let ids = async |arguments: &[&str]| {
        let json = server.json(&[&["instances", "orders"], arguments].concat()).await;
        let ids = json.as_array().unwrap().iter().map(|instance| instance["id"].to_string());
        ids.collect::<String>()
    };
    assert_eq!(ids(&["--zone", "x", "--zone", "z"]).await, r#""a""c""#);
    assert_eq!(ids(&["--version", "2"]).await, r#""b""#);
    assert_eq!(ids(&["--metadata", "k=1=1"]).await, r#""a""#);
    assert_eq!(ids(&["--metadata", "k=2"]).await, "");
}

#[tokio::test]
async fn what_peers_say_does_not_reach_the_terminal_raw() {
    let server = Server::start().await;
    let wild = "\u{1b}]0;title\u{7}\u{9b}31m\r\n\u{202e}";
    let _a = server.register(orders("a").metadata(wild, wild)).await;
    let table = server.run(&["instances", "orders"]).await.stdout;
    assert_eq!(table.lines().count(), 2, "{table:?}");
    assert!(table.contains(r"\u{1b}]0;title"), "{table:?}");
    let json = server.run(&["instances", "orders", "--output", "json"]).await.stdout;
    for text in [&table, &json] {
        let raw = |character: char| character.is_control() && character != '\n';
        assert!(!text.contains(raw) && !text.contains('\u{202e}'), "{text:?}");
    }
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["metadata"][wild], wild);
}

#[tokio::test]
async fn colour_is_absent_when_piped_unless_forced() {
    let server = Server::start().await;
    let _a = server.register(orders("a")).await;
    let plain = server.run(&["instances", "orders"]).await.stdout;
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let mut command = program(["instances", "orders", "--registry", &server.url()]);
    let colourful = finish(command.env("CLICOLOR_FORCE", "1")).await.stdout;
    assert!(colourful.contains("\u{1b}[32mUP\u{1b}[0m"), "{colourful:?}");
    let mut command = program(["instances", "orders", "--registry", &server.url()]);
    let plain = finish(command.env("NO_COLOR", "1")).await.stdout;
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

#[tokio::test]
async fn an_instance_is_drained() {
    let server = Server::start().await;
    let _a = server.register(orders("a")).await;
    let _b = server.register(orders("b")).await;
    let table = server.run(&["drain", "orders", "a"]).await;
    assert_eq!((table.code, table.stdout.as_str()), (0, "orders/a is draining, revision 3\n"));
    let json = server.json(&["drain", "orders", "b"]).await;
    assert_eq!(json["instance"]["status"], "DRAINING");
    assert_eq!(json["cursor"]["revision"], 4);
    server.run(&["drain", "orders", "z"]).await.refused("z");
    server.run(&["drain", "orders", "a", "--namespace", "shop"]).await.refused("shop");
}

#[tokio::test]
async fn suspects_are_shown_and_released() {
    let server = Server::start().await;
    let channel = Endpoint::from_shared(server.url()).unwrap();
    let mut registry = RegistryClient::new(channel.connect().await.unwrap());
    for id in 0..12 {
        let instance = Instance {
            namespace: "shop".into(),
            service: "orders".into(),
            id: id.to_string(),
            host: "10.0.0.1".into(),
            port: 80,
            ..Instance::default()
        };
        let ttl = Some(Duration::from_secs(1).try_into().unwrap());
        let request = RegisterRequest { instance: Some(instance), ttl, disconnect_grace: None };
        registry.register(request).await.unwrap();
    }
    let status = soon("protection", async {
        loop {
            let status = server.json(&["status"]).await;
            if status["protection"][0]["held"] == 2 {
                break status;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let why = "10 of 12 leases expired or lost their stream within 1s";
    assert_eq!(status["protection"][0]["why"], why);
    let table = server.run(&["status"]).await.stdout;
    assert!(table.contains("shop: 2 instances held since "), "{table}");
    assert!(table.contains("`waypost release shop`"), "{table}");
    let instances = server.json(&["instances", "orders", "--namespace", "shop"]).await;
    assert_eq!(instances[0]["status"], "SUSPECT");
    let released = server.run(&["release", "shop"]).await;
    assert_eq!((released.code, released.stdout.as_str()), (0, "shop: evicted 2 held instances\n"));
    let none = server.json(&["release", "shop"]).await;
    assert_eq!((&none["evicted"], &none["cursor"]["revision"]), (&0.into(), &26.into()));
    assert_eq!(server.json(&["status"]).await["protection"], Value::Array(vec![]));
    server.run(&["release", "a b"]).await.refused("namespace");
}

#[tokio::test]
async fn an_instance_is_deregistered() {
    let server = Server::start().await;
    let registry = RegistryClient::new(Endpoint::from_shared(server.url()).unwrap().connect_lazy());
    for id in ["a", "b"] {
        // Without anyone who would register it again.
        let instance = Instance {
            service: "orders".into(),
            id: id.into(),
            host: "h".into(),
            port: 1,
            ..Default::default()
        };
        let instance = Some(instance);
        let request = RegisterRequest { instance, ..Default::default() };
        soon("a registration", registry.clone().register(request)).await.unwrap();
    }
    let table = server.run(&["deregister", "orders", "a"]).await;
    assert_eq!((table.code, table.stdout.as_str()), (0, "deregistered orders/a, revision 3\n"));
    server.run(&["deregister", "orders", "a"]).await.refused("a");
    let json = server.json(&["deregister", "orders", "b"]).await;
    assert_eq!((&json["id"], &json["cursor"]["revision"]), (&"b".into(), &4.into()));
    assert_eq!(server.json(&["services"]).await, Value::Array(Vec::new()));
}

#[tokio::test]
async fn the_status_is_shown() {
    let server = Server::start().await;
    let _a = server.register(orders("a")).await;
    let table = server.run(&["status"]).await.stdout;
    for row in ["revision   1", "instances  1", "store      memory", "ago)"] {
        assert!(table.contains(row), "{row}: {table}");
    }
    let json = server.json(&["status"]).await;
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&json["instances"], &json["leases"]), (&1.into(), &1.into()));
    assert_eq!(json["protection"], Value::Array(Vec::new()));
    let history = json["history_id"].as_str().unwrap();
    assert!(!history.is_empty() && table.contains(history), "{table}");
}

#[tokio::test]
async fn a_refusal_names_the_fields() {
    let server = Server::start().await;
    server.run(&["instances", "bad name"]).await.refused("service: ");
    server.run(&["services", "--namespace", "-"]).await.refused("namespace: ");
    server.run(&["watch", "bad name", "--output", "json"]).await.refused("services");
    let register = ["register", "--service", "-", "--address", "h:1", "--zone", "-"];
    let refused = server.run(&register).await;
    refused.refused("instance.service: ");
    refused.refused("instance.zone: ");
    let short = ["register", "--service", "orders", "--address", "h:1", "--ttl", "10ms"];
    server.run(&short).await.refused("ttl");
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_said_so() {
    // Bound, so that nobody else comes there, but not listening.
    let port = TcpSocket::new_v4().unwrap();
    port.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    let reason = format!("can't reach the registry at {url}: Connection refused");
    let commands: [&[&str]; 5] = [
        &["services"],
        &["instances", "orders"],
        &["drain", "orders", "a"],
        &["deregister", "orders", "a"],
        &["status"],
    ];
    for command in commands {
        run(&url, command).await.refused(&reason);
    }
    run(&url, &["watch", "--output", "json"]).await.refused(&reason);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_not_waited_for_for_ever() {
    // Connections are made, and nobody ever takes them.
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    run(&url, &["status"]).await.refused("no response within 5 s");
}

#[tokio::test]
async fn help_explains_what_commands_do_in_full() {
    let overview = finish(&mut program(["--help"])).await.stdout;
    let cases = [
        ("register", "while this program or a command runs", "128 + n"),
        ("watch", "until SIGINT or SIGTERM", "PRESENT"),
        ("instances", "in every status", "JSON shows the values"),
    ];
    for (command, summary, detail) in cases {
        let help = finish(&mut program([command, "--help"])).await;
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(help.code, 0);
        assert!(words(&overview).contains(summary) && words(&help.stdout).contains(summary));
        assert!(words(&help.stdout).contains(detail), "{}", help.stdout);
    }
    assert!(!overview.contains("launch"), "{overview}");
}

#[tokio::test]
async fn bad_usage_ends_with_2() {
    let both = [&REGISTER[..], &["--ready", "tcp://h:1", "--status", "up"]].concat();
    let without_command = [&REGISTER[..], &["--drain-time", "1s"]].concat();
    let bad: [&[&str]; 21] = [
        &["backup"],
        &["restore"],
        &["check", "--data-dir"],
        &["services", "extra"],
        &["services", "--output", "xml"],
        &["services", "--registry", "127.0.0.1:7510"],
        &["services", "--registry", "http://127.0.0.1:7510/path"],
        &["instances"],
        &["instances", "orders", "--metadata", "key"],
        &["drain", "orders"],
        &["deregister", "orders"],
        &["register", "--service", "orders"],
        &["register", "--service", "orders", "--address", "::1:80"],
        &["register", "--service", "orders", "--address", "h:0"],
        &["register", "--service", "orders", "--address", "h:1", "--port", "metrics"],
        &["register", "--service", "orders", "--address", "h:1", "--ttl", "soon"],
        &["register", "--service", "orders", "--address", "h:1", "--status", "suspect"],
        &["register", "--service", "orders", "--address", "h:1", "--ready", "https://h:1/"],
        &["register", "--service", "orders", "--address", "h:1", "--ready", "h:1"],
        &both,
        &without_command,
    ];
    for arguments in bad {
        let finished = finish(&mut program(arguments)).await;
        assert_eq!(finished.code, 2, "{arguments:?}: {}", finished.stderr);
        assert!(finished.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_watch_shows_what_is_there_and_what_changes() {
    let server = Server::start().await;
    let mut a = server.register(orders("a")).await;
    let mut table = server.start_command(&["watch", "orders"]);
    let mut json = server.start_command(&["watch", "--output", "json"]);
    assert_eq!(words(&table.line().await)[..3], ["TIME", "KIND", "SERVICE"]);
    let present = table.line().await;
    let present = words(&present);
    assert!(humantime::parse_rfc3339(present[0]).is_ok(), "{present:?}");
    assert_eq!(present[1..], ["PRESENT", "orders", "a", "10.0.0.7:8080", "UP", "-", "1"]);
    let event = json.event().await;
    assert_eq!((&event["kind"], &event["instance"]["id"]), (&"PRESENT".into(), &"a".into()));
    a.set_status(Status::Draining).await.unwrap();
    let updated = table.line().await;
    assert_eq!(words(&updated)[1..2], ["UPDATED"]);
    assert_eq!(words(&updated)[5..], ["DRAINING", "-", "2"]);
    assert!(!updated.contains('\u{1b}'), "{updated:?}");
    let event = json.event().await;
    assert_eq!((&event["kind"], &event["reason"]), (&"UPDATED".into(), &Value::Null));
    soon("the deregistration", a.deregister()).await.unwrap();
    let removed = table.line().await;
    assert_eq!(words(&removed)[1..2], ["REMOVED"]);
    assert_eq!(words(&removed)[6..], ["DEREGISTERED", "3"]);
    let event = json.event().await;
    assert_eq!((&event["reason"], &event["revision"]), (&"DEREGISTERED".into(), &3.into()));
    for (command, number) in [(table, Signal::INT), (json, Signal::TERM)] {
        command.signal(number);
        let (status, rest, errors) = command.end().await;
        assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""));
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_when_the_registry_is_back() {
    let server = Server::start().await;
    let gate = Gate::before(Some(server.address)).await;
    let a = server.register(orders("a")).await;
    let mut watch = Running::start(&gate.url(), &["watch", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    gate.put(None);
    let lost = watch.error_line().await;
    assert!(lost.starts_with("waypost: can't reach the registry at "), "{lost}");
    let _b = server.register(orders("b")).await;
    soon("the deregistration", a.deregister()).await.unwrap();
    gate.put(Some(server.address));
    assert_eq!(watch.error_line().await, "waypost: reconnected to the registry");
    let added = watch.event().await;
    assert_eq!((&added["kind"], &added["instance"]["id"]), (&"ADDED".into(), &"b".into()));
    let removed = watch.event().await;
    assert_eq!((&removed["kind"], &removed["reason"]), (&"REMOVED".into(), &"DEREGISTERED".into()));
}

#[tokio::test]
async fn a_watch_tells_the_difference_when_the_registry_has_another_history() {
    let (before, after) = (Server::start().await, Server::start().await);
    let gate = Gate::before(Some(before.address)).await;
    let _a = before.register(orders("a")).await;
    let _b = after.register(orders("b")).await;
    let mut watch = Running::start(&gate.url(), &["watch", "orders", "--output", "json"]);
    assert_eq!(watch.event().await["instance"]["id"], "a");
    gate.put(Some(after.address));
    let removed = watch.event().await;
    assert_eq!((&removed["kind"], &removed["instance"]["id"]), (&"REMOVED".into(), &"a".into()));
    let added = watch.event().await;
    assert_eq!((&added["kind"], &added["instance"]["id"]), (&"ADDED".into(), &"b".into()));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_a_normal_end() {
    let server = Server::start().await;
    let mut a = server.register(orders("a")).await;
    let mut watch = server.start_command(&["watch", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    let Running { mut process, stdout, stderr: _stderr } = watch;
    drop(stdout);
    a.set_weight(1).await.unwrap();
    let status = soon("the end", process.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_watch_that_nobody_reads_ends_at_a_signal() {
    let server = Server::start().await;
    let mut registered = Vec::new();
    // More than pipes hold.
    for index in 0..100 {
        let registration = orders(&index.to_string()).metadata("k", "v".repeat(4000));
        registered.push(server.register(registration).await);
    }
    let mut watch = server.start_command(&["watch", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    watch.signal(Signal::TERM);
    let status = soon("the end", watch.process.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A watch that has begun: the marker that it needs to see is not one of `orders`.
async fn watch_orders(server: &Server) -> (Running, Registered) {
    let marker = server.register(Registration::new("marker", "h", 1)).await;
    let mut watch = server.start_command(&["watch", "orders", "marker", "--output", "json"]);
    assert_eq!(watch.event().await["instance"]["service"], "marker");
    (watch, marker)
}

const REGISTER: [&str; 7] =
    ["register", "--service", "orders", "--address", "[::1]:80", "--id", "a"];

#[tokio::test]
async fn an_instance_in_the_foreground_leaves_at_a_signal() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    for number in [Signal::TERM, Signal::INT] {
        let more = ["--zone", "z", "--version", "2", "--weight", "7", "--metadata", "k=v"];
        let more = [&REGISTER[..], &more, &["--port", "metrics=9090", "--status", "Starting"]];
        let mut register = server.start_command(&more.concat());
        let line = register.line().await;
        assert!(line.starts_with("registered orders/a at [::1]:80, lease "), "{line}");
        let added = watch.event().await["instance"].take();
        assert_eq!((&added["host"], &added["port"]), (&"::1".into(), &80.into()));
        assert_eq!((&added["zone"], &added["version"]), (&"z".into(), &"2".into()));
        assert_eq!((&added["weight"], &added["status"]), (&7.into(), &"STARTING".into()));
        assert_eq!(
            (&added["metadata"]["k"], &added["ports"]["metrics"]),
            (&"v".into(), &9090.into())
        );
        register.signal(number);
        let (status, rest, errors) = register.end().await;
        assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""));
        let removed = watch.event().await;
        assert_eq!(
            (&removed["kind"], &removed["reason"]),
            (&"REMOVED".into(), &"DEREGISTERED".into())
        );
    }
}

/// A command that begins with SIGHUP ignored or not, whatever the tests began with.
#[cfg(target_os = "linux")]
async fn registered_with_hangup(server: &Server, action: &str) -> (Running, bool) {
    let mut command = Command::new("env");
    command.arg(action).arg(PROGRAM).args(REGISTER).arg("--registry").arg(server.url());
    let mut register = Running::spawn(command.stdin(Stdio::null()).kill_on_drop(true));
    assert!(register.line().await.starts_with("registered orders/a at"));
    let id = register.process.id().unwrap();
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1;
    (register, ignored)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_instance_leaves_with_its_terminal_unless_told_to_stay() {
    let server = Server::start().await;
    let (register, ignored) = registered_with_hangup(&server, "--default-signal=HUP").await;
    assert!(!ignored);
    register.signal(Signal::HUP);
    assert_eq!(register.end().await.0.code(), Some(0));
    assert_eq!(server.json(&["services"]).await, Value::Array(Vec::new()));
    let (_register, ignored) = registered_with_hangup(&server, "--ignore-signal=HUP").await;
    assert!(ignored);
}

#[tokio::test]
async fn a_registration_is_told_as_json() {
    let server = Server::start().await;
    let mut register = server.start_command(&[&REGISTER[..], &["--output", "json"]].concat());
    let told = register.event().await;
    assert_eq!((&told["event"], &told["instance"]["id"]), (&"registered".into(), &"a".into()));
    let lease: u64 = told["lease_id"].as_str().unwrap().parse().unwrap();
    assert_ne!(lease, 0);
}

#[tokio::test]
async fn an_instance_is_there_while_its_command_runs() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    // Ends when told to, or by itself so that nothing is left behind.
    let until = format!(
        "for i in $(seq 600); do test -e {}/go && exit $CODE; sleep 0.05; done",
        server.directory.path().display()
    );
    for (code, told) in [("0", ""), ("3", "waypost: the command ended with exit status: 3\n")] {
        let script = until.replace("$CODE", code);
        let command = [&REGISTER[..], &["--", "sh", "-c", &script]].concat();
        let mut register = server.start_command(&command);
        assert!(register.line().await.starts_with("registered orders/a at"));
        assert_eq!(watch.event().await["kind"], "ADDED");
        fs::write(server.directory.path().join("go"), "").unwrap();
        let (status, rest, errors) = register.end().await;
        fs::remove_file(server.directory.path().join("go")).unwrap();
        assert_eq!((status.code(), rest.as_str()), (Some(code.parse().unwrap()), ""));
        assert_eq!(errors, told);
        assert_eq!(watch.event().await["reason"], "DEREGISTERED");
    }
}

#[tokio::test]
async fn an_instance_leaves_before_its_command_hears_of_the_end() {
    let server = Server::start().await;
    for (number, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        let script = format!(
            "trap '\"$WAYPOST\" services --output json; exit 0' {name}; echo ready; \
             for i in $(seq 600); do sleep 0.05; done"
        );
        let command = [&REGISTER[..], &["--output", "json", "--", "sh", "-c", &script]].concat();
        let mut register = server.start_command(&command);
        let mut lines = [register.line().await, register.line().await];
        lines.sort();
        assert_eq!(lines[0], "ready");
        register.signal(number);
        let (status, rest, errors) = register.end().await;
        assert_eq!((status.code(), rest.as_str()), (Some(0), "[]\n"));
        // The shell may say what the signal did to what it had started.
        assert!(!errors.contains("waypost"), "{errors}");
    }
}

#[tokio::test]
async fn a_command_that_the_signal_ends_is_not_reported_as_failed() {
    let server = Server::start().await;
    let command = [&REGISTER[..], &["--", "sh", "-c", "sleep 30; true"]].concat();
    let mut register = server.start_command(&command);
    assert!(register.line().await.starts_with("registered"));
    register.signal(Signal::TERM);
    let (status, _, errors) = register.end().await;
    assert_eq!((status.code(), errors.as_str()), (Some(143), ""));
}

#[tokio::test]
async fn a_second_signal_kills_the_command() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let script = "trap '' TERM; echo ready; for i in $(seq 600); do sleep 0.05; done";
    let command = [&REGISTER[..], &["--", "sh", "-c", script]].concat();
    let mut register = server.start_command(&command);
    for _ in 0..2 {
        register.line().await;
    }
    assert_eq!(watch.event().await["kind"], "ADDED");
    register.signal(Signal::TERM);
    // It has received the first: the second is another one.
    assert_eq!(watch.event().await["instance"]["status"], "DRAINING");
    register.signal(Signal::TERM);
    let (status, _, errors) = register.end().await;
    assert_eq!(status.code(), Some(137));
    assert_eq!(errors, "waypost: the command ended with signal: 9 (SIGKILL)\n");
}

#[tokio::test]
async fn a_refused_registration_ends_the_command() {
    let server = Server::start().await;
    let script = "for i in $(seq 600); do sleep 0.05; done; echo ran to its end";
    let register = ["register", "--service", "-", "--address", "h:1", "--", "sh", "-c", script];
    let finished = server.run(&register).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (1, ""));
    let told = finished.stderr.lines().last().unwrap();
    assert!(told.starts_with("waypost: instance.service: "), "{}", finished.stderr);
}

#[tokio::test]
async fn a_command_runs_without_a_registry() {
    let gate = Gate::before(None).await;
    let command = [&REGISTER[..], &["--", "sh", "-c", "echo ran"]].concat();
    let finished = run(&gate.url(), &command).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "ran\n"));
    let failing = [&REGISTER[..], &["--", "sh", "-c", "exit 4"]].concat();
    let finished = run(&gate.url(), &failing).await;
    assert_eq!(finished.code, 4);
    let told: Vec<_> = finished.stderr.lines().collect();
    let expected = [
        "waypost: not registered: stopped before the registry responded",
        "waypost: the command ended with exit status: 4",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_instance_comes_back_when_the_registry_does() {
    let server = Server::start().await;
    let gate = Gate::before(None).await;
    let mut register = Running::start(&gate.url(), &REGISTER);
    let waits = register.error_line().await;
    assert!(waits.contains("does not respond; retrying"), "{waits}");
    gate.put(Some(server.address));
    assert!(register.line().await.starts_with("registered orders/a at"));
    gate.put(None);
    let away = register.error_line().await;
    assert!(away.contains("can't reach the registry"), "{away}");
    gate.put(Some(server.address));
    let back = soon("its return", async {
        loop {
            let line = register.error_line().await;
            if line.contains("registered again, lease ") {
                break line;
            }
        }
    })
    .await;
    assert!(back.starts_with("waypost: "), "{back}");
    assert_eq!(server.json(&["instances", "orders"]).await[0]["id"], "a");
}
