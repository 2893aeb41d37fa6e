//! The port file: the bound addresses, for programs that wait until a server serves.

use std::{fmt::Write, fs, io, net::SocketAddr, path::Path};

/// Writes one address a line, whole or not at all: a reader never sees a part of it.
///
/// Errors: the file, or the temporary file beside it, can't be written.
pub fn write(path: &Path, addresses: &[SocketAddr]) -> io::Result<()> {
    let mut text = String::new();
    for address in addresses {
        // Writing to a string can't fail.
        let _written = writeln!(text, "{address}");
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, text)?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_on_a_line_each_and_nothing_is_left_beside_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ports");
        let addresses = ["127.0.0.1:80".parse().unwrap(), "[::1]:81".parse().unwrap()];
        write(&path, &addresses).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1:80\n[::1]:81\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("none/ports"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
