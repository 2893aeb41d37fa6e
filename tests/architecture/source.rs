//! The sources of the workspace, generated ones left out.

use std::{fs, path::Path};

/// Folders with sources, from the root of the repository.
const ROOTS: [&str; 7] = ["src", "client", "gateway", "crates", "tests", "benches", "examples"];

/// A file of Rust.
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// True for tests, benchmarks, examples and what they share.
    pub(crate) fn is_for_development(&self) -> bool {
        let folders = ["tests", "benches", "examples", "testing", "simulation"];
        let is_one = |part: &str| folders.contains(&part) || part == "tests.rs";
        self.path.split('/').any(is_one)
    }

    /// The comments: number of the line, kind (`//`, `///` or `//!`) and text.
    pub(crate) fn comments(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.text.lines().enumerate().filter_map(|(index, line)| {
            let start = line.trim_start();
            let kind = ["//!", "///", "//"].into_iter().find(|kind| start.starts_with(kind))?;
            Some((index + 1, kind, start[kind.len()..].trim()))
        })
    }
}

/// All of them, in order of their paths.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ROOTS {
        collect(root, &root.join(folder), &mut found);
    }
    found.sort_by(|one: &Source, other| one.path.cmp(&other.path));
    assert!(found.len() > 300, "the sources are not where they were: {}", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        if path.is_dir() {
            if !["generated", "target"].contains(&name) {
                collect(root, &path, found);
            }
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root).expect("below the root");
            let relative = relative.to_str().expect("a path in UTF-8").to_owned();
            found.push(Source { path: relative, text: fs::read_to_string(&path).expect("text") });
        }
    }
}
