//! A small disk of a test's own.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::statvfs;
use tempfile::TempDir;

/// The filler is written in such steps.
const STEP_BYTES: usize = 4096;

/// A disk in memory. Unmounted by drop.
pub(super) struct SmallDisk {
    place: TempDir,
}

impl SmallDisk {
    /// Nothing, and a word on standard output, where tests may not mount.
    #[allow(clippy::print_stdout, reason = "the test is passed over, which nothing else tells")]
    pub(super) fn mount(bytes: u64) -> Option<Self> {
        let place = TempDir::new().expect("a directory");
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(place.path())
            .output();
        match mounted {
            Ok(mounted) if mounted.status.success() => Some(Self { place }),
            refused => {
                println!("passed over, for nothing can be mounted here: {refused:?}");
                None
            }
        }
    }

    /// The data directory on it.
    pub(super) fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// Fills the disk except for `spare_bytes`.
    pub(super) fn fill(&self, spare_bytes: u64) {
        let mut filler = File::create(self.filler()).expect("a file");
        while room(self.place.path()) > spare_bytes {
            match filler.write_all(&[1; STEP_BYTES]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("the disk can't be filled: {error}"),
            }
        }
    }

    /// Removes the filler.
    pub(super) fn make_room(&self) {
        fs::remove_file(self.filler()).expect("removed");
    }

    /// Has it refuse every write to come.
    pub(super) fn make_read_only(&self) {
        let remounted = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(self.place.path())
            .status()
            .expect("the command runs");
        assert!(remounted.success(), "it is mounted anew");
    }

    fn filler(&self) -> PathBuf {
        self.place.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while a server that ends still has it open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.place.path()).status();
        assert!(
            std::thread::panicking() || unmounted.is_ok_and(|status| status.success()),
            "it is unmounted"
        );
    }
}

fn room(path: &Path) -> u64 {
    let disk = statvfs(path).expect("a disk");
    disk.f_bavail * disk.f_frsize
}
