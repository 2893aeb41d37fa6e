//! A token in a file that something else rotates, as a kubelet does with projected volumes.
//! Invariant: content that is no token never replaces the token in force.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};

use super::{
    content::{self, POLL_INTERVAL},
    token::{TOKEN_BYTES_MAX, Token, TokenError, TokenSource},
};
use crate::runtime::{clock, tasks};

/// A file that holds one token; white space around it is ignored.
///
/// The file is followed by content: read each second, in the background, while the client has
/// requests to send. New content counts once it has stayed the same for 100 ms; content that is no
/// token is logged (`error`, once for each change) and changes nothing. Clones share the token.
///
/// ```
/// use waypost_client::{TokenFile, TokenSource};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("token");
/// # std::fs::write(&path, "waypost_2c26b46b68ffc68f\n")?;
/// let file = TokenFile::open(&path)?;
/// assert!(file.token().is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenFile {
    followed: Arc<FollowedToken>,
}

struct FollowedToken {
    path: PathBuf,
    current: ArcSwap<Token>,
    /// The content that was judged last.
    judged: Mutex<TokenContent>,
    /// Lives as long as the task that follows the file.
    task: Mutex<Weak<()>>,
}

/// Content of the file. Of a token, only its digest is kept for the comparison.
#[derive(Clone)]
struct TokenContent {
    digest: [u8; 32],
    token: Result<Token, TokenError>,
}

impl PartialEq for TokenContent {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl TokenFile {
    /// Reads the token for the first time. Blocks; needs no runtime.
    ///
    /// # Errors
    /// [`TokenError::Unreadable`], or [`TokenError::File`] if the file does not hold one token.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokenError> {
        let path = path.into();
        let judged = TokenContent::read(&path);
        let current = ArcSwap::from_pointee(judged.token.clone()?);
        let (judged, task) = (Mutex::new(judged), Mutex::default());
        Ok(Self { followed: Arc::new(FollowedToken { path, current, judged, task }) })
    }

    /// Starts the task that follows the file, unless it runs. The token stays as it is outside a
    /// runtime.
    fn follow(&self) {
        let mut task = self.followed.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.strong_count() > 0 || !tasks::is_in_runtime() {
            return;
        }
        let alive = Arc::new(());
        *task = Arc::downgrade(&alive);
        let followed = Arc::downgrade(&self.followed);
        tasks::spawn("token file", async move {
            // Owned by the task: however it ends, with its runtime for example, another one can
            // start.
            let _alive = alive;
            follow(followed).await;
        });
    }
}

/// Follows the file until the last clone is dropped.
async fn follow(followed: Weak<FollowedToken>) {
    loop {
        clock::sleep(POLL_INTERVAL).await;
        let Some(followed) = followed.upgrade() else { return };
        followed.poll().await;
    }
}

impl TokenSource for TokenFile {
    fn token(&self) -> Result<Token, TokenError> {
        self.follow();
        Ok(Token::clone(&self.followed.current.load()))
    }
}

impl FollowedToken {
    async fn poll(&self) {
        let last = self.judged().clone();
        let path = self.path.clone();
        let read = move || TokenContent::read(&path);
        let Some(content) = content::read_settled(read, &last).await else { return };
        match &content.token {
            Ok(token) => self.current.store(Arc::new(token.clone())),
            Err(error) => tracing::error!(%error, "invalid token file, keeping the previous token"),
        }
        *self.judged() = content;
    }

    fn judged(&self) -> std::sync::MutexGuard<'_, TokenContent> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenContent {
    /// Blocks.
    fn read(path: &Path) -> Self {
        // White space at the ends, and room to see that there is too much.
        let read = content::read_file(path, TOKEN_BYTES_MAX + 1024);
        let digest = match &read {
            Ok(bytes) => Sha256::digest(bytes).into(),
            Err(error) => Sha256::digest(format!("unreadable: {error}")).into(),
        };
        let token = read.map_err(|error| unreadable(path, &error)).and_then(|bytes| {
            let text = str::from_utf8(bytes.trim_ascii()).map_err(|_| TokenError::Invalid);
            let invalid = |source| TokenError::File { path: path.into(), source: Box::new(source) };
            text.and_then(Token::new).map_err(invalid)
        });
        Self { digest, token }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> TokenError {
    TokenError::Unreadable { path: path.into(), reason: error.to_string() }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenFile").field("path", &self.followed.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    fn authorization(file: &TokenFile) -> http::HeaderValue {
        file.token().unwrap().authorization()
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_token_is_used_and_a_damaged_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "first\n").unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert_eq!(authorization(&file), "Bearer first");
        for (content, expected) in [
            (Some("second"), "Bearer second"),
            (Some(""), "Bearer second"),
            (Some("two words"), "Bearer second"),
            (None, "Bearer second"),
            (Some(" third \r\n"), "Bearer third"),
        ] {
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            clock::sleep(Duration::from_secs(2)).await;
            assert_eq!(authorization(&file), expected, "{content:?}");
        }
        assert!(!format!("{file:?}").contains("third"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, token) in [("a", "first"), ("b", "second")] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("token"), token).unwrap();
        }
        std::os::unix::fs::symlink("a", at("data")).unwrap();
        let file = TokenFile::open(at("data").join("token")).unwrap();
        assert_eq!(authorization(&file), "Bearer first");
        std::os::unix::fs::symlink("b", at("data.new")).unwrap();
        fs::rename(at("data.new"), at("data")).unwrap();
        clock::sleep(Duration::from_secs(2)).await;
        assert_eq!(authorization(&file), "Bearer second");
    }

    #[test]
    fn a_file_without_a_token_is_refused_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(matches!(TokenFile::open(&path), Err(TokenError::Unreadable { .. })));
        for content in [&b""[..], b"\n", b"s3cret s3cret", b"\xff\xfe", &[b'x'; 20_000]] {
            fs::write(&path, content).unwrap();
            let error = TokenFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("token file") && !error.contains("s3cret"), "{error}");
        }
    }
}
