//! The file of audit records: opened anew when it was moved away, replaced when it is full. Blocks.
//!
//! Invariant: a write appends all of its lines or none, and a line is never cut.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// The owner's alone: records have the names of callers and services.
const MODE: u32 = 0o600;

/// The bounds of the files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    pub(super) file_bytes_max: u64,
    /// The file and those that it was: `FILE`, `FILE.1`, and so on.
    pub(super) files_max: usize,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { file_bytes_max: 32 << 20, files_max: 8 }
    }
}

/// The file that records are appended to.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    rotation: Rotation,
    /// `None` after a failure.
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    kind: FileKind,
    /// The device and number of the file.
    id: (u64, u64),
    bytes: u64,
    /// Whether a write was cut, so that the last line has no end.
    ends_in_line: bool,
}

/// A kind of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Regular,
    /// A pipe or a device, which has no length and no successor.
    Special,
}

impl AuditFile {
    /// Opens a file, which need not exist.
    pub(super) fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        let open = Some(OpenFile::at(&path)?);
        Ok(Self { path, rotation, open })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the greatest length of the lines in one write.
    pub(super) fn write_bytes_max(&self) -> usize {
        usize::try_from(self.rotation.file_bytes_max.min(256 << 10)).unwrap_or(usize::MAX)
    }

    /// Appends lines. On an error nothing of them is in the file.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let bytes = lines.len() as u64;
        let mut open = match self.open.take() {
            Some(open) if open.is_at(&self.path) => open,
            _ => OpenFile::at(&self.path)?,
        };
        let is_full = open.bytes.saturating_add(bytes) > self.rotation.file_bytes_max;
        if open.kind == FileKind::Regular && open.bytes > 0 && is_full {
            self.rotate()?;
            open = OpenFile::at(&self.path)?;
        }
        open.append(lines)?;
        self.open = Some(open);
        Ok(())
    }

    /// Renames `FILE` to `FILE.1`, that to `FILE.2`, and so on; the last one is replaced.
    fn rotate(&self) -> io::Result<()> {
        let name = |number: usize| match number {
            0 => self.path.clone(),
            _ => {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{number}"));
                name.into()
            }
        };
        if self.rotation.files_max < 2 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.rotation.files_max).rev() {
            match fs::rename(name(number - 1), name(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl OpenFile {
    fn at(path: &Path) -> io::Result<Self> {
        // A pipe that nothing reads is an error, not a wait.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        let (id, bytes) = ((metadata.dev(), metadata.ino()), metadata.len());
        let kind = if metadata.is_file() { FileKind::Regular } else { FileKind::Special };
        if kind == FileKind::Regular && metadata.mode() & 0o777 != MODE {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let ends_in_line = kind == FileKind::Regular && ends_in_line(path, bytes);
        Ok(Self { file, kind, id, bytes, ends_in_line })
    }

    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let ended;
        let lines = match self.ends_in_line {
            true => {
                ended = [b"\n", lines].concat();
                &ended
            }
            false => lines,
        };
        if let Err(error) = self.file.write_all(lines) {
            // A part may be in the file. Where it can't be removed, a newline ends it later: the
            // file is opened anew after an error.
            if self.kind == FileKind::Regular {
                let _ = self.file.set_len(self.bytes);
            }
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        self.ends_in_line = false;
        Ok(())
    }
}

/// Returns whether the last line of a file has no end. `false` where it can't be read.
fn ends_in_line(path: &Path, bytes: u64) -> bool {
    let Some(place) = bytes.checked_sub(1) else { return false };
    let mut last = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, place));
    read.is_ok() && last != [b'\n']
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const SMALL: Rotation = Rotation { file_bytes_max: 10, files_max: 3 };

    fn opened(rotation: Rotation) -> (TempDir, PathBuf, AuditFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let file = AuditFile::open(path.clone(), rotation).unwrap();
        (directory, path, file)
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn file_is_for_its_owner_alone() {
        let (_directory, path, mut file) = opened(Rotation::default());
        file.write(b"a\n").unwrap();
        assert_eq!((content(&path).as_str(), mode(&path)), ("a\n", 0o600));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        AuditFile::open(path.clone(), SMALL).unwrap().write(b"b\n").unwrap();
        assert_eq!((content(&path).as_str(), mode(&path)), ("a\nb\n", 0o600));
    }

    #[test]
    fn full_file_is_rotated_and_the_oldest_removed() {
        let (directory, path, mut file) = opened(SMALL);
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "a long line\n", "six\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let older = |number: u8| directory.path().join(format!("audit.log.{number}"));
        assert_eq!(content(&path), "six\n");
        assert_eq!(content(&older(1)), "a long line\n");
        assert_eq!(content(&older(2)), "four\nfive\n");
        assert!(!older(3).exists());
        assert_eq!(mode(&older(1)), 0o600);
        // A start continues the file, and counts what is in it.
        let mut file = AuditFile::open(path.clone(), SMALL).unwrap();
        file.write(b"seven\n").unwrap();
        file.write(b"eight\n").unwrap();
        assert_eq!((content(&path), content(&older(1))), ("eight\n".into(), "six\nseven\n".into()));
    }

    #[test]
    fn single_file_is_replaced_when_it_is_full() {
        let (_directory, path, mut file) = opened(Rotation { files_max: 1, ..SMALL });
        file.write(b"1234567\n").unwrap();
        file.write(b"890\n").unwrap();
        assert_eq!(content(&path), "890\n");
    }

    #[test]
    fn file_that_was_moved_or_removed_is_opened_anew() {
        let (directory, path, mut file) = opened(Rotation::default());
        file.write(b"a\n").unwrap();
        let moved = directory.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        file.write(b"b\n").unwrap();
        assert_eq!((content(&moved), content(&path)), ("a\n".into(), "b\n".into()));
        assert_eq!(mode(&path), 0o600);
        fs::remove_file(&path).unwrap();
        file.write(b"c\n").unwrap();
        assert_eq!(content(&path), "c\n");
        fs::rename(&moved, &path).unwrap();
        file.write(b"d\n").unwrap();
        assert_eq!(content(&path), "a\nd\n");
    }

    #[test]
    fn line_that_was_cut_is_ended() {
        let (_directory, path, file) = opened(Rotation::default());
        drop(file);
        fs::write(&path, "{\"cut").unwrap();
        let mut file = AuditFile::open(path.clone(), Rotation::default()).unwrap();
        file.write(b"a\n").unwrap();
        file.write(b"b\n").unwrap();
        assert_eq!(content(&path), "{\"cut\na\nb\n");
    }

    #[test]
    fn failure_is_returned_and_the_next_write_tries_again() {
        let mut full = AuditFile::open("/dev/full".into(), SMALL).unwrap();
        for _ in 0..3 {
            assert_eq!(full.write(b"a\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        let (directory, path, mut file) = opened(Rotation::default());
        let moved = directory.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(file.write(b"a\n").is_err());
        fs::remove_dir(&path).unwrap();
        file.write(b"b\n").unwrap();
        assert_eq!(content(&path), "b\n");
        assert!(AuditFile::open(directory.path().join("no/file"), SMALL).is_err());
    }
}
