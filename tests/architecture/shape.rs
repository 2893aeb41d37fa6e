//! Files and functions: headers, lengths, folders.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, sources};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;
const FOLDER_FILES_MAX: usize = 13;
const COLUMNS_MAX: usize = 100;

/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

#[test]
fn every_file_has_a_header() {
    let bare = |source: &Source| !source.text.starts_with("//! ");
    let bare: Vec<_> = sources().into_iter().filter(bare).map(|source| source.path).collect();
    assert!(bare.is_empty(), "files without a header: {bare:#?}");
}

#[test]
fn files_are_short() {
    let allowed = |path: &str| LONG_FILES.iter().any(|(long, _)| *long == path);
    let long: Vec<_> = sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, path)| *lines > FILE_LINES_MAX && !allowed(path))
        .collect();
    assert!(long.is_empty(), "files over {FILE_LINES_MAX} lines: {long:#?}");
}

#[test]
fn functions_are_short() {
    let long: Vec<_> = sources().iter().flat_map(long_functions).collect();
    assert!(long.is_empty(), "functions over {FUNCTION_LINES_MAX} lines: {long:#?}");
}

/// As rustfmt writes it, a function ends with the first brace at its own indentation.
fn long_functions(source: &Source) -> Vec<String> {
    let lines: Vec<_> = source.text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let is_function =
            line.trim_start().split(' ').take_while(|word| *word != "fn").all(|word| {
                word.starts_with("pub") || ["const", "async", "unsafe", "in"].contains(&word)
            }) && line.contains("fn ");
        if !is_function {
            continue;
        }
        let end = format!("{}}}", &line[..indent]);
        let count = lines[start..].iter().take_while(|line| **line != end).count() + 1;
        if count > FUNCTION_LINES_MAX && !line.trim_end().ends_with(';') {
            long.push(format!("{}:{}: {count} lines", source.path, start + 1));
        }
    }
    long
}

#[test]
fn folders_are_small_and_have_their_root_inside() {
    let paths: BTreeSet<_> = sources().into_iter().map(|source| source.path).collect();
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for path in &paths {
        let (folder, _) = path.rsplit_once('/').expect("a folder");
        *folders.entry(folder).or_default() += 1;
    }
    folders.retain(|_, files| *files > FOLDER_FILES_MAX);
    assert!(folders.is_empty(), "folders with more files than {FOLDER_FILES_MAX}: {folders:#?}");
    let beside = |path: &&String| {
        let folder = format!("{}/", path.trim_end_matches(".rs"));
        !path.starts_with("tests/") && paths.iter().any(|other| other.starts_with(&folder))
    };
    let beside: Vec<_> = paths.iter().filter(beside).collect();
    assert!(beside.is_empty(), "modules beside their folders: {beside:#?}");
}

#[test]
fn no_module_has_a_path_attribute() {
    let attribute = concat!("#[", "path");
    let with = |source: &Source| source.text.contains(attribute);
    let with: Vec<_> = sources().into_iter().filter(with).map(|source| source.path).collect();
    assert!(with.is_empty(), "share code by crates/testing, not by {attribute}: {with:#?}");
}

#[test]
fn comments_end_at_the_column_of_code() {
    let mut wide = Vec::new();
    for source in sources() {
        let lines = source.text.lines().enumerate();
        let over = lines.filter(|(_, line)| {
            let is_link = line.contains("](http") || line.contains("]: http");
            line.trim_start().starts_with("//") && line.chars().count() > COLUMNS_MAX && !is_link
        });
        wide.extend(over.map(|(index, _)| format!("{}:{}", source.path, index + 1)));
    }
    assert!(wide.is_empty(), "comments over {COLUMNS_MAX} columns: {wide:#?}");
}
