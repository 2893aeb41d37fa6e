//! Files that are replaced, written in place, cut off and restored.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::time::timeout;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::{parse, reload::content::SETTLE_TIME, value};

const ONE: &str = "value = 1\n";
const TWO: &str = "value = 2\n";
const THREE: &str = "value = 3\n\n# The other keys.\nother = 1\nmore = 2\n";
const INVALID: &str = "value = 'a'\nother = -1";

/// Reads `value`.
fn open(path: &Path) -> Result<WatchedFile<u64>, LoadError> {
    WatchedFile::open(path, |text, _| {
        parse(text, |file| {
            let other = file.read("other", |value| value::integer(value, 0..=9_u64));
            let more = file.read("more", |value| value::integer(value, 0..=9_u64));
            let value = file.required("value", |value| value::integer(value, 0..=9));
            other.and(more)?;
            value
        })
    })
}

/// A file with `ONE`, and its directory.
fn opened() -> (TempDir, PathBuf, WatchedFile<u64>) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("settings.toml");
    write(&path, ONE);
    let file = open(&path).expect("a valid file");
    (directory, path, file)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the file can be written");
}

/// Replaces a file by a new one, as many editors do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    write(&new, text);
    fs::rename(&new, path).expect("the file can be renamed");
}

impl WatchedFile<u64> {
    fn source(&self) -> &FileSource<u64> {
        self.source.as_ref().expect("a file")
    }

    async fn judge_now(&self, trigger: Trigger) -> Reload {
        self.judge(self.source(), FileContent::read(&self.source().path).await, trigger)
    }

    async fn wait_for(&self, value: u64) {
        let in_force = async {
            while *self.current() != value {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), in_force).await.expect("it comes into force");
    }
}

/// Collects the log lines of this thread, as long as the guard lives.
fn log() -> (Arc<Mutex<Vec<u8>>>, DefaultGuard) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&lines);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || LogWriter(Arc::clone(&writer)))
        .with_ansi(false)
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

fn text(log: &Mutex<Vec<u8>>) -> String {
    String::from_utf8(log.lock().expect("no panic").clone()).expect("text")
}

struct LogWriter(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn missing_or_invalid_file_is_not_opened() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("settings.toml");
    assert!(matches!(open(&path), Err(LoadError::Read { .. })));
    write(&path, INVALID);
    let error = open(&path).expect_err("errors").to_string();
    assert!(error.starts_with(&format!("invalid configuration {}", path.display())), "{error}");
    assert!(error.contains(", 2 error(s):\nline 1: value: must be"), "{error}");
    fs::write(&path, b"\n# \xff").expect("the file can be written");
    let error = open(&path).expect_err("no text");
    assert!(error.to_string().ends_with("line 2: must be UTF-8"), "{error}");
    write(&path, &"#".repeat((4 << 20) + 1));
    assert!(matches!(open(&path), Err(LoadError::Read { .. })));
    write(&path, &format!("{ONE}{}", "#".repeat((4 << 20) - ONE.len())));
    assert!(open(&path).is_ok());
}

#[tokio::test]
async fn valid_content_comes_into_force() {
    let (_directory, path, file) = opened();
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Unchanged);
    write(&path, TWO);
    assert_eq!(*file.current(), 1);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Replaced);
    assert_eq!(*file.current(), 2);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Unchanged);
}

#[tokio::test]
async fn rejected_content_leaves_the_value_and_is_logged_once() {
    let (_directory, path, file) = opened();
    let (log, _guard) = log();
    write(&path, INVALID);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Rejected);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Unchanged);
    assert_eq!(*file.current(), 1);
    fs::remove_file(&path).expect("the file is there");
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Rejected);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Unchanged);
    assert_eq!(*file.current(), 1);
    write(&path, ONE);
    let restored = file.judge_now(Trigger::Poll).await;
    assert_eq!(restored, Reload::Replaced, "the operator learns that the file is valid again");
    let lines = text(&log);
    assert_eq!(lines.matches("ERROR").count(), 2, "{lines}");
    for part in ["value: must be an integer", "other: '-1'", "cannot read configuration"] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
}

#[tokio::test]
async fn file_that_was_cut_off_leaves_the_value_in_force() {
    let (_directory, path, file) = opened();
    let (log, _guard) = log();
    write(&path, THREE);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Replaced);
    let cuts = THREE.match_indices('\n').map(|(at, _)| &THREE[..at]);
    for cut in cuts.chain([""]) {
        write(&path, cut);
        assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Rejected, "{cut:?}");
        assert_eq!(*file.current(), 3, "{cut:?}");
    }
    write(&path, THREE);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Replaced);
    let lines = text(&log);
    assert!(lines.contains("is cut off, keeping the previous one"), "{lines}");
}

#[tokio::test]
async fn signal_confirms_that_lines_were_removed() {
    let (_directory, path, file) = opened();
    let (log, _guard) = log();
    write(&path, &format!("{TWO}other = 1\n"));
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Replaced);
    write(&path, TWO);
    assert_eq!(file.judge_now(Trigger::Poll).await, Reload::Rejected);
    assert_eq!(file.judge_now(Trigger::Signal).await, Reload::Replaced);
    let again = file.judge_now(Trigger::Signal).await;
    assert_eq!(again, Reload::Replaced, "files that it names may have changed");
    write(&path, "");
    for _ in 0..2 {
        assert_eq!(file.judge_now(Trigger::Signal).await, Reload::Rejected);
    }
    assert_eq!(*file.current(), 2);
    let lines = text(&log);
    let count = lines.matches("invalid configuration").count();
    assert_eq!(count, 2, "each signal has its log line: {lines}");
}

#[tokio::test]
async fn parse_receives_the_value_in_force() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("settings.toml");
    write(&path, ONE);
    let file = WatchedFile::open(&path, |_, previous: Option<&u64>| {
        Ok(previous.map_or(1, |previous| previous + 1))
    });
    let file = file.expect("a valid file");
    assert_eq!(file.judge_now(Trigger::Signal).await, Reload::Replaced);
    assert_eq!(*file.current(), 2);
    assert_eq!(*WatchedFile::fixed(7).current(), 7);
}

#[tokio::test(start_paused = true)]
async fn change_is_followed_however_it_is_made() {
    let (directory, path, file) = opened();
    // Each test that logs has a subscriber: tracing caches that a call site has none.
    let _guard = log();
    let follow = file.poll(file.source(), POLL_INTERVAL, Hangup::new(), |_| {});
    let changes = async {
        write(&path, TWO);
        file.wait_for(2).await;
        replace(&path, ONE);
        file.wait_for(1).await;
        fs::remove_file(&path).expect("the file is there");
        sleep(POLL_INTERVAL * 3).await;
        assert_eq!(*file.current(), 1);
        // Mounted volumes replace the directory that a link leads to.
        let data = |name: &str| directory.path().join(name);
        for (name, text) in [("first", TWO), ("second", ONE)] {
            fs::create_dir(data(name)).expect("a directory");
            write(&data(name).join("settings.toml"), text);
        }
        symlink("first", data("now")).expect("a link");
        symlink("now/settings.toml", &path).expect("a link");
        file.wait_for(2).await;
        symlink("second", data("next")).expect("a link");
        fs::rename(data("next"), data("now")).expect("the link can be renamed");
        file.wait_for(1).await;
    };
    select! {
        () = follow => unreachable!("it never returns"),
        () = changes => {}
    }
}

#[tokio::test(start_paused = true)]
async fn content_is_judged_once_it_stays_the_same() {
    let (_directory, path, file) = opened();
    replace(&path, "#");
    // Replaced, so that each read finds a whole content, whichever it is.
    let writer = async {
        for length in 1..TWO.len() {
            sleep(SETTLE_TIME / 2).await;
            replace(&path, &format!("#{}", &TWO[..length]));
            assert_eq!(*file.current(), 1);
        }
        replace(&path, TWO);
    };
    tokio::join!(file.judge_settled(file.source()), writer);
    assert_eq!(*file.current(), 2);
}

#[tokio::test]
async fn signal_judges_at_once_and_reports_the_reload() {
    let (_directory, path, file) = opened();
    write(&path, TWO);
    let process = rustix::process::getpid();
    let reloaded = Mutex::new(Vec::new());
    let on_reload = |value: &u64| reloaded.lock().expect("no panic").push(*value);
    let hour = Duration::from_secs(60 * 60);
    let follow = file.poll(file.source(), hour, Hangup::new(), on_reload);
    let change = async {
        // The other half has been polled once by then.
        tokio::task::yield_now().await;
        rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("a signal");
        file.wait_for(2).await;
    };
    select! {
        biased;
        () = follow => unreachable!("it never returns"),
        () = change => {}
    }
    assert_eq!(*reloaded.lock().expect("no panic"), [2]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_it() {
    let (_directory, _path, file) = opened();
    let shutdown = CancellationToken::new();
    let follow = file.follow(Hangup::new(), shutdown.clone(), |_| {});
    let stop = async {
        sleep(POLL_INTERVAL * 5 / 2).await;
        shutdown.cancel();
    };
    let both = async { tokio::join!(follow, stop) };
    timeout(POLL_INTERVAL * 3, both).await.expect("it ends");
}
