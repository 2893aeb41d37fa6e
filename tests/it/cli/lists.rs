//! `services`, `instances`: tables and JSON.

use serde_json::Value;
use waypost_client::{Client, Registration, proto::Status};
use waypost_testing::wait::soon;

use super::{
    orders,
    support::{Server, finish, program},
    words,
};

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
async fn services_over_several_pages_are_all_listed() {
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
async fn control_characters_are_escaped_on_the_terminal() {
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
