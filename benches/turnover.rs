//! The size of a registry's directory after all its instances were replaced many times: space is
//! reused. `cargo bench --bench turnover` (`-- --turnovers N` instead of 10, `-- --quick` for a
//! short run without meaning).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use waypost::{
    auth::Caller,
    clock::Clock,
    engine::Engine,
    model::{
        Content, Host, InstanceId, LeaseTerms, Limits, Metadata, Name, Parts, ServiceKey, Status,
        Version,
    },
    registry::{LeaseSeed, Outcome},
    store::DiskStore,
};
use waypost_serving::tasks::Tasks;
use waypost_testing::registry::numbered_instance;

/// Instances of a service.
const A_SERVICE: u64 = 20;
/// Writes at a time.
const AT_ONCE: u64 = 2_000;
const TTL: Duration = Duration::from_secs(300);

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "--quick" || word == "--test");
    let after = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1);
    let turnovers = if quick { 1 } else { 10 };
    let turnovers = after("--turnovers").map_or(turnovers, |number| number.parse().unwrap());
    let sizes: &[u64] = if quick { &[2_000] } else { &[100_000, 1_000_000] };
    for instances in sizes {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = directory.path().join("data");
        let begun = Instant::now();
        for turnover in 0..=turnovers {
            fill(&data, *instances, turnover);
            println!(
                "{instances} instances, turnover {turnover}: {:.0} MB on disk, {:.0} s",
                bytes(&data) as f64 / 1e6,
                begun.elapsed().as_secs_f64()
            );
        }
    }
}

/// Puts instances into a directory in place of those that are there.
fn fill(data: &Path, instances: u64, turnover: u64) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let (limits, tasks) = (Limits::default(), Tasks::default());
        let (store, loaded) = DiskStore::open(data, &limits).unwrap();
        let engine =
            Engine::start(store, loaded, LeaseSeed::repeatable(1), &limits, Clock::start(), &tasks)
                .unwrap();
        for first in (0..instances).step_by(AT_ONCE as usize) {
            let indexes = first..instances.min(first + AT_ONCE);
            join_all(indexes.map(|index| replace(&engine, index, turnover))).await;
        }
        assert!(tasks.join(Duration::from_secs(10)).await);
    });
}

async fn replace(engine: &Engine, index: u64, turnover: u64) {
    let name = |text: String| Name::parse(&text, 128).unwrap();
    let like = numbered_instance(&format!("service-{}", index / A_SERVICE), index);
    let service = ServiceKey { namespace: name("default".to_owned()), service: name(like.service) };
    let id = |turnover| InstanceId::parse(&format!("{}-{turnover}", like.id), 256).unwrap();
    if turnover > 0 {
        let id = id(turnover - 1);
        let permit = Caller::unrestricted().operate(service.clone(), &id).unwrap();
        engine.deregister(permit, id).await.unwrap();
    }
    let content = Content::from(&Parts {
        host: Host::parse(&like.host, 253).unwrap(),
        port: 8080.try_into().unwrap(),
        ports: [].into(),
        status: Status::Up,
        zone: Some(name(like.zone)),
        version: Version::parse(&like.version, 128).unwrap(),
        weight: 100,
        metadata: Metadata::new(&like.metadata.into_iter().collect()),
    });
    let terms = LeaseTerms { ttl: TTL, disconnect_grace: Duration::from_secs(3) };
    let id = id(turnover);
    let permit = Caller::unrestricted().register(service, &id, &content.host()).unwrap();
    let registered = engine.register(permit, id, content, terms).await.unwrap();
    assert!(matches!(registered, Outcome::Registered { .. }));
}

/// The bytes of the directory's files.
fn bytes(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}
