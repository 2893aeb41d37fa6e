//! The settings in force, and the file that they are read from.
//! Invariant: a file with mistakes never comes into force, nor one that is empty or cut off.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::AsyncReadExt,
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use waypost_config::{ConfigError as Mistake, ConfigErrors as Mistakes};

use crate::settings::Settings;

/// The time between two looks at the file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a file has to stay the same before it counts as written.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// The same for a file without a newline at its end, which may be in the middle of being written.
const OPEN_END_SETTLE_TIME: Duration = Duration::from_secs(1);
/// How many bytes a file has, at most.
const BYTES_MAX: u64 = 4 << 20;

/// The settings that are in force: always the last ones without mistakes that their file had.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    /// None: they never change.
    path: Option<PathBuf>,
    current: ArcSwap<Settings>,
    /// Also keeps two judgements apart.
    judged: Mutex<Judged>,
}

/// What is known of the file.
#[derive(Debug)]
struct Judged {
    /// What the file was when it was last looked at.
    last: Content,
    /// The text of the settings in force.
    in_force: Vec<u8>,
}

/// Why the file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// The time has come.
    Interval,
    /// An operator sent SIGHUP: the file is written to its end.
    Signal,
}

/// What a file is. Compared as a whole: times and inodes tell too little of files that are replaced, or
/// reached through links that are.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Bytes(Vec<u8>),
    /// Why it can't be read.
    Unreadable(String),
}

/// Why there is no configuration to begin with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file can't be read.
    #[error("{} can't be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can be read, and has mistakes.
    #[error("{} has {} mistake(s):\n{mistakes}", .path.display(), .mistakes.0.len())]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them.
        mistakes: Mistakes,
    },
}

/// What came of another look at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reload {
    /// The file is what it was.
    Unchanged,
    /// What it says now is in force.
    Swapped,
    /// It can't be read, or has mistakes: what was in force still is.
    Refused,
}

impl SettingsFile {
    /// Reads the file. Blocks.
    ///
    /// Errors: it can't be read, or has mistakes.
    pub(crate) fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let read = fs::File::open(&path).and_then(|file| {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, BYTES_MAX + 1), &mut bytes)?;
            checked(bytes)
        });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(source) => return Err(OpenError::Read { path, source }),
        };
        match parse(&bytes, &path, None) {
            Ok(settings) => {
                let current = ArcSwap::from_pointee(settings);
                let last = Content::Bytes(bytes.clone());
                let judged = Mutex::new(Judged { last, in_force: bytes });
                Ok(Self { path: Some(path), current, judged })
            }
            Err(mistakes) => Err(OpenError::Mistakes { path, mistakes }),
        }
    }

    /// Settings without a file: those of an empty one.
    pub(crate) fn none() -> Self {
        let last = Content::Bytes(Vec::new());
        let judged = Mutex::new(Judged { last, in_force: Vec::new() });
        Self { path: None, current: ArcSwap::from_pointee(Settings::default()), judged }
    }

    /// What is in force. A request takes it once: the next one may find others.
    pub(crate) fn current(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// Looks at the file each second, and when the process gets SIGHUP, until `shutdown`; calls `swapped`
    /// each time that other settings have come into force. Cancel safe.
    ///
    /// What is found each second counts once it has stayed the same for 100 ms (1 s where it does not end
    /// with a newline), so that an editor that writes in place can come to its end; and not at all where it
    /// is the beginning of what is in force, as a file that was cut off is. SIGHUP reports that the file
    /// is whole.
    pub(crate) async fn follow(
        self: Arc<Self>,
        hangup: Hangup,
        shutdown: CancellationToken,
        swapped: impl Fn(&Settings),
    ) {
        let following = async {
            match &self.path {
                Some(path) => self.follow_each(path, LOOK_INTERVAL, hangup, swapped).await,
                None => ignore(hangup).await,
            }
        };
        shutdown.run_until_cancelled(following).await;
    }

    async fn follow_each(
        &self,
        path: &Path,
        interval: Duration,
        mut hangup: Hangup,
        swapped: impl Fn(&Settings),
    ) {
        loop {
            let look = async {
                sleep(interval).await;
                self.look(path).await
            };
            let reload = select! {
                reload = look => reload,
                () = hangup.received() => self.judge(path, read(path).await, Occasion::Signal),
            };
            if reload == Reload::Swapped {
                swapped(&self.current());
            }
        }
    }

    /// Judges a file that may be in the middle of being written, once it stays the same.
    async fn look(&self, path: &Path) -> Reload {
        let mut found = read(path).await;
        while !self.is_judged(&found) {
            sleep(found.settle_time()).await;
            let again = read(path).await;
            if again == found {
                return self.judge(path, again, Occasion::Interval);
            }
            found = again;
        }
        Reload::Unchanged
    }

    fn is_judged(&self, content: &Content) -> bool {
        self.lock().last == *content
    }

    /// Puts `content` in force, or logs why not: at each signal, with the files that it names, and otherwise
    /// once for the same content.
    fn judge(&self, path: &Path, content: Content, occasion: Occasion) -> Reload {
        let mut judged = self.lock();
        // A signal reads again what is the same, too: files that it names may have changed.
        if judged.last == content && occasion == Occasion::Interval {
            return Reload::Unchanged;
        }
        let is_in_force = matches!(&content, Content::Bytes(bytes) if *bytes == judged.in_force);
        let read = content.settings(path, &self.current()).and_then(|settings| {
            let is_cut_off = !is_in_force && content.is_beginning_of(&judged.in_force);
            if is_cut_off && occasion == Occasion::Interval {
                Err(Refusal::CutOff)
            } else {
                Ok(settings)
            }
        });
        judged.last = content;
        let settings = match read {
            Ok(settings) => settings,
            Err(refusal) => {
                refusal.log(path);
                return Reload::Refused;
            }
        };
        if let Content::Bytes(bytes) = &judged.last {
            judged.in_force = bytes.clone();
        }
        let routes = settings.config.routes.routes().len();
        self.current.store(Arc::new(settings));
        info!(path = %path.display(), routes, "configuration reloaded");
        Reload::Swapped
    }

    fn lock(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the settings of before stay in force.
#[derive(Debug)]
enum Refusal {
    Unreadable(String),
    Mistakes(Mistakes),
    CutOff,
}

impl Refusal {
    fn log(&self, path: &Path) {
        let path = path.display();
        match self {
            Self::Unreadable(error) => {
                error!(%path, error, "configuration can't be read, keeping the previous one");
            }
            Self::Mistakes(mistakes) => {
                let count = mistakes.0.len();
                error!(%path, count, %mistakes, "invalid configuration, keeping the previous one");
            }
            Self::CutOff => error!(
                %path,
                "configuration has lost its end, keeping the previous one; \
                 to remove these lines on purpose, send SIGHUP"
            ),
        }
    }
}

impl Content {
    fn settle_time(&self) -> Duration {
        match self {
            Self::Bytes(bytes) if !bytes.ends_with(b"\n") => OPEN_END_SETTLE_TIME,
            Self::Bytes(_) | Self::Unreadable(_) => SETTLE_TIME,
        }
    }

    fn is_beginning_of(&self, whole: &[u8]) -> bool {
        matches!(self, Self::Bytes(bytes) if whole.starts_with(bytes))
    }

    fn settings(&self, path: &Path, before: &Settings) -> Result<Settings, Refusal> {
        match self {
            Self::Bytes(bytes) => parse(bytes, path, Some(before)).map_err(Refusal::Mistakes),
            Self::Unreadable(error) => Err(Refusal::Unreadable(error.clone())),
        }
    }
}

/// SIGHUP, which no longer ends the process from when this is created.
pub(crate) struct Hangup(Option<Signal>);

impl Hangup {
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new() -> Self {
        let signal = signal(SignalKind::hangup());
        let failed =
            |error: &io::Error| warn!(%error, "SIGHUP can't be received, following the file alone");
        Self(signal.inspect_err(failed).ok())
    }

    /// Waits for a signal; forever where none can be received. Cancel safe.
    async fn received(&mut self) {
        let received = match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if received.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

async fn ignore(mut hangup: Hangup) {
    loop {
        hangup.received().await;
        info!("SIGHUP ignored: there is no configuration file to read again");
    }
}

async fn read(path: &Path) -> Content {
    match read_bytes(path).await {
        Ok(bytes) => Content::Bytes(bytes),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

async fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    checked(bytes)
}

fn checked(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 4 MiB"));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], path: &Path, before: Option<&Settings>) -> Result<Settings, Mistakes> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_empty(text) => Err(Mistakes(vec![Mistake {
            line: None,
            path: String::new(),
            message: "the file has no settings; to run without any, write `implicit = true`"
                .to_owned(),
        }])),
        Ok(text) => {
            let base = path.parent().unwrap_or_else(|| Path::new(""));
            Settings::read(text, base, before)
        }
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            let message = "must be UTF-8".to_owned();
            Err(Mistakes(vec![Mistake { line: Some(line), path: String::new(), message }]))
        }
    }
}

/// Returns whether a file has no key, as one that is being written in place, or a full disk cut off.
fn is_empty(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use tokio::time::timeout;
    use tracing::subscriber::DefaultGuard;

    use super::*;

    const ONE: &str = "limits.timeout = '1s'\n";
    const TWO: &str = "limits.timeout = '2s'\n";
    const BAD: &str = "limits.timeout = 'soon'\nlimits.body = -1";

    fn in_force(file: &SettingsFile) -> u64 {
        file.current().config.limits.timeout.as_secs()
    }

    /// A file that says `ONE`, and its directory.
    fn opened() -> (TempDir, PathBuf, Arc<SettingsFile>) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("gateway.toml");
        write(&path, ONE);
        let file = SettingsFile::open(&path).expect("a configuration");
        (directory, path, Arc::new(file))
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).expect("the file can be written");
    }

    /// As many editors do: a new file takes the place of the old one.
    fn replace(path: &Path, text: &str) {
        let new = path.with_extension("new");
        write(&new, text);
        fs::rename(&new, path).expect("the file can be renamed");
    }

    impl SettingsFile {
        /// Looks at a file that is not being written.
        async fn reload(&self, path: &Path) -> Reload {
            self.judge(path, read(path).await, Occasion::Interval)
        }

        async fn signalled(&self, path: &Path) -> Reload {
            self.judge(path, read(path).await, Occasion::Signal)
        }
    }

    async fn wait_for(file: &SettingsFile, seconds: u64) {
        let there = async {
            while in_force(file) != seconds {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), there).await.expect("it comes into force");
    }

    /// The log of this thread, as long as the guard lives.
    fn log() -> (Arc<Mutex<Vec<u8>>>, DefaultGuard) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || Lines(Arc::clone(&writer)))
            .with_ansi(false)
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_not_opened() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("gateway.toml");
        assert!(matches!(SettingsFile::open(&path), Err(OpenError::Read { .. })));
        write(&path, BAD);
        let error = SettingsFile::open(&path).expect_err("mistakes");
        assert!(error.to_string().contains("2 mistake(s):\nline 1: limits.timeout: "), "{error}");
        fs::write(&path, b"\n# \xff").expect("the file can be written");
        let error = SettingsFile::open(&path).expect_err("no text");
        assert!(error.to_string().ends_with("line 2: must be UTF-8"), "{error}");
        write(&path, &"#".repeat((4 << 20) + 1));
        assert!(matches!(SettingsFile::open(&path), Err(OpenError::Read { .. })));
        write(&path, &format!("{ONE}{}", "#".repeat((4 << 20) - ONE.len())));
        assert!(SettingsFile::open(&path).is_ok());
        for empty in ["", "\n\n", "\u{feff}", "# routes of the shop\n\n  # none yet"] {
            write(&path, empty);
            let error = SettingsFile::open(&path).expect_err("nothing");
            assert!(error.to_string().contains("has no settings"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_without_mistakes_comes_into_force() {
        let (_directory, path, file) = opened();
        assert_eq!(file.reload(&path).await, Reload::Unchanged);
        write(&path, TWO);
        assert_eq!(in_force(&file), 1);
        assert_eq!(file.reload(&path).await, Reload::Swapped);
        assert_eq!(in_force(&file), 2);
        assert_eq!(file.reload(&path).await, Reload::Unchanged);
    }

    #[tokio::test]
    async fn mistakes_leave_what_is_in_force_and_are_logged_once() {
        let (_directory, path, file) = opened();
        let (lines, _guard) = log();
        write(&path, BAD);
        assert_eq!(file.reload(&path).await, Reload::Refused);
        assert_eq!(file.reload(&path).await, Reload::Unchanged);
        assert_eq!(in_force(&file), 1);
        fs::remove_file(&path).expect("the file is there");
        assert_eq!(file.reload(&path).await, Reload::Refused);
        assert_eq!(file.reload(&path).await, Reload::Unchanged);
        assert_eq!(in_force(&file), 1);
        write(&path, ONE);
        assert_eq!(
            file.reload(&path).await,
            Reload::Swapped,
            "the operator wants to know that it is well"
        );
        let lines = String::from_utf8(lines.lock().expect("no panic").clone()).expect("text");
        assert_eq!(lines.matches("ERROR").count(), 2, "{lines}");
        assert_eq!(lines.matches("INFO").count(), 1, "{lines}");
        for part in ["limits.timeout: 'soon'", "limits.body: '-1'", "can't be read"] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
    }

    const THREE: &str = "implicit = false\n\n[limits]\ntimeout = '3s'\nbody = '1MiB'\n";

    #[tokio::test]
    async fn a_file_that_was_cut_off_or_emptied_leaves_what_is_in_force() {
        let (_directory, path, file) = opened();
        let (lines, _guard) = log();
        write(&path, THREE);
        assert_eq!(file.reload(&path).await, Reload::Swapped);
        let cuts = THREE.match_indices('\n').map(|(at, _)| &THREE[..at]);
        for cut in cuts.chain(["", "\n", "# implicit = false\n"]) {
            write(&path, cut);
            assert_eq!(file.reload(&path).await, Reload::Refused, "{cut:?}");
            assert_eq!(in_force(&file), 3, "{cut:?}");
        }
        write(&path, THREE);
        assert_eq!(file.reload(&path).await, Reload::Swapped, "it is well again");
        let lines = String::from_utf8(lines.lock().expect("no panic").clone()).expect("text");
        for part in ["has lost its end, keeping the previous one", "has no settings"] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
    }

    #[tokio::test]
    async fn a_signal_takes_lines_away_and_never_all_of_them() {
        let (_directory, path, file) = opened();
        write(&path, &format!("{TWO}implicit = false\n"));
        assert_eq!(file.reload(&path).await, Reload::Swapped);
        write(&path, TWO);
        assert_eq!(file.reload(&path).await, Reload::Refused);
        assert_eq!(file.signalled(&path).await, Reload::Swapped);
        assert_eq!(
            file.current().config.routes.implicit(),
            crate::routes::Implicit::Routed { timeout: Duration::from_secs(2) }
        );
        assert_eq!(file.signalled(&path).await, Reload::Swapped, "files that it names may differ");
        write(&path, "");
        assert_eq!(file.signalled(&path).await, Reload::Refused);
        assert_eq!(
            file.signalled(&path).await,
            Reload::Refused,
            "each signal has an answer in the log"
        );
        assert_eq!(in_force(&file), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_followed_however_it_is_made() {
        let (directory, path, file) = opened();
        let follow = file.follow_each(&path, LOOK_INTERVAL, Hangup::new(), |_| {});
        let changes = async {
            write(&path, TWO);
            wait_for(&file, 2).await;
            replace(&path, ONE);
            wait_for(&file, 1).await;
            fs::remove_file(&path).expect("the file is there");
            sleep(LOOK_INTERVAL * 3).await;
            assert_eq!(in_force(&file), 1);
            // As mounted volumes do: what a link leads to is replaced as a whole.
            let data = |name: &str| directory.path().join(name);
            for (name, text) in [("first", TWO), ("second", ONE)] {
                fs::create_dir(data(name)).expect("a directory");
                write(&data(name).join("gateway.toml"), text);
            }
            symlink("first", data("now")).expect("a link");
            symlink("now/gateway.toml", &path).expect("a link");
            wait_for(&file, 2).await;
            symlink("second", data("next")).expect("a link");
            fs::rename(data("next"), data("now")).expect("the link can be renamed");
            wait_for(&file, 1).await;
        };
        select! {
            () = follow => unreachable!("nothing ends it"),
            () = changes => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_counts_once_it_stays_the_same() {
        let (_directory, path, file) = opened();
        replace(&path, "#");
        // Replaced, as each look has to find one of the contents: which it is is what matters.
        let writer = async {
            for length in 1..TWO.len() {
                sleep(SETTLE_TIME / 2).await;
                replace(&path, &format!("#{}", &TWO[..length]));
                assert_eq!(in_force(&file), 1);
            }
            replace(&path, TWO);
        };
        tokio::join!(file.look(&path), writer);
        assert_eq!(in_force(&file), 2);
    }

    #[tokio::test]
    async fn a_signal_makes_it_look_at_once() {
        let (_directory, path, file) = opened();
        write(&path, TWO);
        let process = rustix::process::getpid();
        let follow = file.follow_each(&path, Duration::from_secs(60 * 60), Hangup::new(), |_| {});
        let change = async {
            // The other half has been polled once by then.
            tokio::task::yield_now().await;
            rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("a signal");
            wait_for(&file, 2).await;
        };
        select! {
            biased;
            () = follow => unreachable!("nothing ends it"),
            () = change => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_process_ends_it() {
        let (_directory, _path, file) = opened();
        let shutdown = CancellationToken::new();
        let follow = file.follow(Hangup::new(), shutdown.clone(), |_| {});
        let stop = async {
            sleep(LOOK_INTERVAL * 5 / 2).await;
            shutdown.cancel();
        };
        let both = async { tokio::join!(follow, stop) };
        timeout(LOOK_INTERVAL * 3, both).await.expect("it ends");
    }
}
