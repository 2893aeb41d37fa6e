//! An unusable store is refused at the start: exit code 1 and one line with its name and the
//! remedy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fastrand::Rng;
use redb::{Database, TableDefinition};
use rustix::process::Signal;
use tempfile::TempDir;
use waypost_testing::{
    registry::{instance, register, resolve_all},
    seed::seed,
};

use super::{Clients, FILE, expect_refused_start, on, tmpfs::SmallDisk};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The path of the unusable store.
const INSTANCES: usize = 50;

/// A store with something in it, and a place for it.
async fn a_store() -> (TempDir, PathBuf) {
    let place = TempDir::new().expect("a directory");
    let data = place.path().join("data");
    let mut server = on(&data).start().await;
    let mut clients = Clients::of(&server).await;
    for number in 0..INSTANCES {
        register(&mut clients.registry, instance("orders", &number.to_string())).await;
    }
    drop(clients);
    server.signal(Signal::TERM);
    assert!(server.end().await.success());
    (place, data)
}

#[tokio::test]
async fn second_server_on_a_directory_is_refused() {
    let place = TempDir::new().expect("a directory");
    let mut server = on(place.path()).start().await;
    let said = expect_refused_start(place.path()).await;
    assert!(said.contains("another server uses it"), "{said}");
    let mut clients = Clients::of(&server).await;
    register(&mut clients.registry, instance("orders", "a")).await;
    server.kill().await;
    // No process is left that could hold the directory.
    let server = on(place.path()).start().await;
    let mut clients = Clients::of(&server).await;
    assert_eq!(resolve_all(&mut clients.discovery, "orders").await.instances.len(), 1);
}

#[tokio::test]
async fn directory_that_cannot_be_created_is_refused() {
    let place = TempDir::new().expect("a directory");
    let file = place.path().join("file");
    fs::write(&file, "not a directory").expect("written");
    for data in [file.clone(), file.join("below"), PathBuf::from("/proc/waypost")] {
        let said = expect_refused_start(&data).await;
        assert!(said.contains("must be a writable directory"), "{said}");
    }
    assert_eq!(fs::read_to_string(file).expect("it is left alone"), "not a directory");
}

#[tokio::test]
async fn read_only_disk_is_refused() {
    let Some(disk) = SmallDisk::mount(1024 * 1024) else { return };
    on(&disk.data()).start().await.kill().await;
    disk.make_read_only();
    for data in [disk.data(), disk.data().join("below")] {
        let said = expect_refused_start(&data).await;
        assert!(said.contains("Read-only") && said.contains("writable directory"), "{said}");
    }
}

#[tokio::test]
async fn store_of_a_newer_version_is_refused_and_unchanged() {
    let (_place, data) = a_store().await;
    let file = data.join(FILE);
    write_format(&file, &3_u64.to_be_bytes());
    for _ in 0..2 {
        let said = expect_refused_start(&data).await;
        assert!(said.contains("its format is 3"), "{said}");
        assert!(said.contains("start the version that wrote it"), "{said}");
    }
    write_format(&file, b"noise");
    let said = expect_refused_start(&data).await;
    assert!(said.contains("its format is unknown"), "{said}");
    write_format(&file, &2_u64.to_be_bytes());
    let server = on(&data).start().await;
    assert_eq!(Clients::of(&server).await.status().await.instances, INSTANCES as u64);
}

fn write_format(file: &Path, format: &[u8]) {
    let database = Database::open(file).expect("a store");
    let transaction = database.begin_write().expect("begun");
    transaction.open_table(META).expect("a table").insert("format", format).expect("put");
    transaction.commit().expect("committed");
}

#[tokio::test]
async fn file_that_is_not_a_store_is_refused() {
    let (_place, data) = a_store().await;
    let file = data.join(FILE);
    let whole = fs::read(&file).expect("a file");
    let mut noise = vec![0; whole.len()];
    Rng::with_seed(seed()).fill(&mut noise);
    let cuts = [0, 1, 64, 4096, whole.len() / 2, whole.len() - 1];
    let mut contents: Vec<_> = cuts.map(|length| whole[..length].to_vec()).into();
    contents.extend([noise, vec![0; 4096], b"a list of things to do\n".to_vec()]);
    for content in contents {
        fs::write(&file, &content).expect("written");
        let said = expect_refused_start(&data).await;
        assert!(said.contains(FILE) && said.contains("it is damaged: restore a backup"), "{said}");
        assert_eq!(fs::read(&file).expect("a file"), content, "it is left as it is");
    }

    // A file of another program, and something that is not a file.
    fs::remove_file(&file).expect("removed");
    let other = Database::create(&file).expect("made");
    drop(other);
    let said = expect_refused_start(&data).await;
    assert!(said.contains(FILE) && said.contains("it is damaged: restore a backup"), "{said}");
    fs::remove_file(&file).expect("removed");
    fs::create_dir(&file).expect("made");
    let said = expect_refused_start(&data).await;
    assert!(said.contains(FILE) && said.contains("Is a directory"), "{said}");
}
