//! The documentation against the code: defaults, keys, environment variables, messages, links.
//! Reads the sources as text, so that a reworded message fails here until its page follows.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use waypost::{Config, config::Overrides, model::Limits};

const SOURCES: [&str; 4] = ["src", "client/src", "gateway/src", "crates"];
const CONFIGURATION: &str = "docs/operations/configuration.md";
const LIMITS: &str = "docs/operations/limits.md";
/// The code that reads the gateway's configuration, and the methods that take a key.
const GATEWAY_KEYS: [&str; 3] =
    ["gateway/src/config", "crates/auth/src/callers", "crates/auth/src/jwt"];
const READS: [&str; 12] = [
    ".read(",
    ".required(",
    ".list(",
    ".nonempty_list(",
    ".one_or_more(",
    ".string_map(",
    ".table(",
    ".tables(",
    ".file(",
    ".toml_file(",
    ".has(",
    "allowed(section, ",
];
/// Prefixes of code spans that are paths in the repository.
const FOLDERS: [&str; 9] = [
    "src/",
    "tests/",
    "client/",
    "gateway/",
    "crates/",
    "benches/",
    "examples/",
    "proto/",
    "docs/",
];
/// Pages with tables of messages.
const MESSAGES: [&str; 2] =
    ["docs/operations/troubleshooting.md", "docs/operations/logs-and-metrics.md"];
/// Columns of these tables whose code spans are messages.
const MESSAGE_COLUMNS: [&str; 3] = ["message", "status and message", "title: detail"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(path).expect("the file can be read")
}

/// Collects the files below a folder whose names end with `extension`.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git"].contains(&name.as_str()) {
            files(&path, extension, found);
        } else if name.ends_with(extension) {
            found.push(path);
        }
    }
}

/// Returns the product's sources, with string literals joined that continue on the next line.
fn sources() -> String {
    let mut found = Vec::new();
    for folder in SOURCES {
        files(&root().join(folder), ".rs", &mut found);
    }
    let mut sources = String::new();
    for path in found {
        let text = read(path);
        let mut continues = false;
        for line in text.lines() {
            let line = if continues { line.trim_start() } else { line };
            continues = line.ends_with('\\');
            sources.push_str(line.strip_suffix('\\').unwrap_or(line));
            if !continues {
                sources.push('\n');
            }
        }
    }
    sources.replace("\\\"", "\"")
}

/// Returns the text between each `begin` and the next `end`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    text.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0)).collect()
}

/// Returns the code spans of a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Returns the cells of a table's row.
fn cells(line: &str) -> Vec<&str> {
    let line = line.trim_matches('|');
    line.split(" | ").map(|cell| cell.trim_matches([' ', '|'])).collect()
}

#[test]
fn example_of_the_configuration_has_the_defaults() {
    let page = read(CONFIGURATION);
    let example = between(&page, "```toml\n", "```")[0];
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), example).unwrap();
    let overrides = Overrides { config: Some(file.path().into()), ..Overrides::default() };
    assert_eq!(Config::load(overrides).unwrap(), Config::default());
    // And all keys: those without a default are comments. `--insecure` is a flag alone.
    let fields = format!("{:?}", Config::default());
    for (key, _) in fields.split(", ").filter_map(|field| field.split_once(": ")) {
        let key = key.rsplit(' ').next().unwrap();
        assert!(
            example.contains(&format!("{key} = ")) || matches!(key, "limits" | "insecure"),
            "{key}"
        );
    }
}

#[test]
fn every_limit_has_a_row_with_its_default() {
    let page = read(LIMITS);
    let limits = format!("{:?}", Limits::default());
    let fields = limits.trim_start_matches("Limits { ").trim_end_matches(" }");
    for (key, value) in fields.split(", ").map(|field| field.split_once(": ").unwrap()) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let default = cells(row.unwrap_or_else(|| panic!("no row for {key}")))[2];
        let value = if key == "protection_hold_max" { "`\"10m\"`" } else { value };
        assert_eq!(default, value, "{key}");
    }
}

#[test]
fn every_environment_variable_is_documented() {
    let sources = sources();
    let pages = read(CONFIGURATION) + &read("docs/guide/command-line.md");
    let variables = between(&sources, "env = \"", "\"");
    assert!(variables.len() > 15, "{variables:?}");
    for variable in variables {
        assert!(pages.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn every_key_of_the_gateway_is_documented() {
    let page = read(CONFIGURATION);
    let mut found = Vec::new();
    for folder in GATEWAY_KEYS {
        files(&root().join(folder), ".rs", &mut found);
    }
    // Below the root, which may itself be below a folder of this name.
    found.retain(|path| {
        let path = path.strip_prefix(root()).unwrap_or(path);
        !path.components().any(|part| part.as_os_str() == "tests")
    });
    let sources: String = found.iter().map(read).collect();
    // Calls of several lines in one.
    let sources = sources.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
    let keys: BTreeSet<&str> =
        READS.iter().flat_map(|call| between(&sources, &format!("{call}\""), "\"")).collect();
    assert!(keys.len() > 45, "{keys:?}");
    let words: BTreeSet<&str> = page
        .lines()
        .flat_map(spans)
        .flat_map(|span| span.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect();
    let missing: Vec<_> = keys.difference(&words).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_documented_message_is_in_the_code() {
    let sources = sources();
    let mut missing = BTreeSet::new();
    for page in MESSAGES {
        let mut columns = Vec::new();
        let text = read(page);
        for line in text.lines() {
            if !line.starts_with('|') {
                columns.clear();
                continue;
            }
            let cells = cells(line);
            if columns.is_empty() {
                columns = cells.iter().map(|name| MESSAGE_COLUMNS.contains(name)).collect();
                continue;
            }
            let messages = cells.iter().zip(&columns).filter(|(_, is_message)| **is_message);
            for span in messages.flat_map(|(cell, _)| spans(cell)) {
                let known = span.split('…').all(|part| sources.contains(part.trim()));
                if !known {
                    missing.insert(format!("{page}: {span}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in the code: {missing:#?}");
}

/// Returns the anchor that the forge gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut pages = Vec::new();
    files(root(), ".md", &mut pages);
    let mut broken = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in between(&text, "](", ")").into_iter().filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let has_heading = |text: String| {
                text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
            };
            let leads = if heading.is_empty() {
                target.exists()
            } else {
                fs::read_to_string(&target).is_ok_and(has_heading)
            };
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_path_exists() {
    let mut pages = Vec::new();
    files(root(), ".md", &mut pages);
    // It has the paths of its time.
    pages.retain(|page| !page.ends_with("CHANGELOG.md"));
    let mut missing = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let paths = text.lines().flat_map(spans).filter(|span| {
            !span.contains([' ', '*']) && FOLDERS.iter().any(|folder| span.starts_with(folder))
        });
        for path in paths.flat_map(expanded) {
            if !root().join(&path).exists() && !page.with_file_name(&path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Expands the braces of `a/{b,c}.rs`.
fn expanded(path: &str) -> Vec<String> {
    let braces =
        path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (names, after))) = braces else { return vec![path.to_owned()] };
    names.split(',').map(|name| format!("{before}{name}{after}")).collect()
}
