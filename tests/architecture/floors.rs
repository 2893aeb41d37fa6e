//! Imports go downward: by the floors of each crate between its top modules, and without circles
//! between the modules of every folder.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, sources};

/// The top modules of a crate by floors, the lowest first. Modules of one floor import none of each
/// other.
struct Floors {
    root: &'static str,
    floors: &'static [&'static [&'static str]],
}

const FLOORS: [Floors; 5] = [
    Floors {
        root: "crates/core/src",
        floors: &[&["failpoint"], &["model"], &["registry"], &["testing"]],
    },
    Floors {
        root: "crates/auth/src",
        floors: &[
            &["unauthorized"],
            &["jwt"],
            &["callers", "policy"],
            &["certificate"],
            &["tls"],
            &["testing"],
        ],
    },
    Floors {
        root: "src",
        floors: &[
            &["model", "registry"],
            &["protobuf", "clock", "pki"],
            &["store", "auth"],
            &["engine"],
            &["api"],
            &["config"],
            &["server"],
            &["cli"],
        ],
    },
    Floors {
        root: "client/src",
        floors: &[
            &["proto", "correlation", "runtime"],
            &["credentials", "metrics"],
            &["transport"],
            &["endpoint", "registry"],
            &["balance", "registration", "registry_channel"],
            &["view"],
            &["service"],
            &["adapters", "channel"],
            &["client"],
            &["builder"],
            &["fake"],
        ],
    },
    Floors {
        root: "gateway/src",
        floors: &[
            &["clock", "guard", "problem"],
            &["routes", "server"],
            &["config", "headers", "limits", "observe", "upstream"],
            &["middleware"],
            &["settings"],
            &["gateway"],
            &["admin", "proxy"],
            &["start"],
            &["cli"],
        ],
    },
];

/// A module by the names on the way to it, and all paths of modules that it imports.
struct Module {
    path: Vec<String>,
    imports: Vec<Vec<String>>,
    /// The names that it re-exports, each with the path that they come from.
    exports: BTreeMap<String, Vec<String>>,
}

#[test]
fn imports_go_downward() {
    let sources = sources();
    let mut upward = Vec::new();
    for Floors { root, floors } in FLOORS {
        let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
        for module in modules(&sources, root) {
            let Some(from) = module.path.first().filter(|name| *name != "lib" && *name != "main")
            else {
                continue;
            };
            let from_floor = floor(from);
            assert!(from_floor.is_some(), "{root}/{from} has no floor: add it to {}", file!());
            for to in module.imports.iter().filter_map(|import| import.first()) {
                if to != from && floor(to).is_some_and(|to| Some(to) >= from_floor) {
                    upward.push(format!("{root}: {} imports {to}", module.path.join("/")));
                }
            }
        }
    }
    assert!(upward.is_empty(), "imports that go upward or aside: {upward:#?}");
}

#[test]
fn no_folder_has_a_circle() {
    let sources = sources();
    let roots: BTreeSet<_> = sources.iter().filter_map(source_root).collect();
    let mut circles = Vec::new();
    for root in roots {
        let modules = modules(&sources, root);
        let folders: BTreeSet<_> = modules
            .iter()
            .flat_map(|module| (0..module.path.len()).map(|end| &module.path[..end]))
            .collect();
        for folder in folders {
            let arrows = arrows(&modules, folder);
            if let Some(circle) = circle(&arrows) {
                circles.push(format!("{root}/{}: {}", folder.join("/"), circle.join(" -> ")));
            }
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

/// `client/src` of `client/src/view/cache.rs`.
fn source_root(source: &Source) -> Option<&str> {
    let end = source.path.find("src/")? + 3;
    (!source.path.starts_with("tests/")).then(|| &source.path[..end])
}

fn modules(sources: &[Source], root: &str) -> Vec<Module> {
    let prefix = format!("{root}/");
    let inside = sources.iter().filter(|source| source.path.starts_with(&prefix));
    let module = |source: &Source| {
        let path = source.path[prefix.len()..].trim_end_matches(".rs").trim_end_matches("/mod");
        let mut path: Vec<_> = path.split('/').map(str::to_owned).collect();
        let is_folder = source.path.ends_with("/mod.rs");
        // Tests beside a module may use what stands above it.
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        let imports = imports(code, &path);
        let mut exports = BTreeMap::new();
        if is_folder {
            let inside = imports.iter().filter(|import| import.starts_with(&path));
            let inside = inside.filter(|import| import.len() > path.len() + 1);
            exports
                .extend(inside.filter_map(|import| Some((import.last()?.clone(), import.clone()))));
            path.push("mod".to_owned());
        }
        Module { path, imports, exports }
    };
    let is_test = |module: &Module| module.path.iter().any(|name| name == "tests");
    inside.map(module).filter(|module| !is_test(module)).collect()
}

/// The absolute paths that the `use` statements of a module name.
fn imports(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let declared = code.lines().filter_map(|line| line.strip_suffix(';')?.rsplit_once("mod "));
    let children: BTreeSet<_> = declared.map(|(_, child)| child).collect();
    let mut imports = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find("use ") {
        let line = rest[..start].rsplit('\n').next().unwrap_or_default().trim_start();
        let begins = line.is_empty() || line.starts_with("pub");
        rest = &rest[start + 4..];
        let Some(end) = rest.find(';').filter(|_| begins) else { continue };
        let statement: String = rest[..end].split_whitespace().collect();
        for path in expanded(&statement) {
            imports.extend(absolute(&path, module, &children));
        }
    }
    imports
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((before, inside)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (index, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.flat_map(expanded).map(|part| format!("{before}{part}")).collect()
}

/// A path from the root of the crate; `None` for one of another crate.
fn absolute(path: &str, module: &[String], children: &BTreeSet<&str>) -> Option<Vec<String>> {
    let mut names = path.split("::").peekable();
    let mut base: Vec<String> = match *names.peek()? {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        child if children.contains(child) => {
            return Some(module.iter().cloned().chain(names.map(str::to_owned)).collect());
        }
        _ => return None,
    };
    names.next();
    while names.next_if_eq(&"super").is_some() {
        base.pop();
    }
    base.extend(names.map(str::to_owned));
    Some(base)
}

/// The imports between the modules of a folder.
fn arrows<'a>(modules: &'a [Module], folder: &[String]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let child = |path: &'a [String]| -> Option<&'a str> {
        (path.len() > folder.len() && path.starts_with(folder)).then(|| path[folder.len()].as_str())
    };
    let children: BTreeSet<_> = modules.iter().filter_map(|module| child(&module.path)).collect();
    // A name that the folder re-exports counts as an import of the module that it comes from.
    let root = modules
        .iter()
        .filter(|module| module.path.split_last().is_some_and(|(_, at)| at == folder));
    let exports: BTreeMap<Vec<String>, Vec<String>> = root
        .flat_map(|module| &module.exports)
        .map(|(name, from)| (folder.iter().chain([name]).cloned().collect(), from.clone()))
        .collect();
    let exports: &'a BTreeMap<_, _> = Box::leak(Box::new(exports));
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for module in modules {
        let Some(from) = child(&module.path).filter(|name| !["mod", "lib", "main"].contains(name))
        else {
            continue;
        };
        let to = module.imports.iter().map(|import| exports.get(import).unwrap_or(import));
        let to = to.filter_map(|import| child(import));
        let to = to.filter(|to| *to != from && children.contains(to));
        arrows.entry(from).or_default().extend(to);
    }
    arrows
}

/// A circle among arrows, if there is one.
fn circle(arrows: &BTreeMap<&str, BTreeSet<&str>>) -> Option<Vec<String>> {
    let mut left = arrows.clone();
    loop {
        let free: Vec<_> = left
            .iter()
            .filter(|(_, to)| !to.iter().any(|to| left.contains_key(to)))
            .map(|(from, _)| *from)
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|from, _| !free.contains(from));
    }
    // Everything left leads to a circle: follow it.
    let mut path = vec![*left.keys().next()?];
    loop {
        let next = left[path.last()?].iter().copied().find(|to| left.contains_key(to))?;
        if let Some(start) = path.iter().position(|name| *name == next) {
            let mut circle: Vec<_> = path[start..].iter().map(|name| (*name).to_owned()).collect();
            circle.push(next.to_owned());
            return Some(circle);
        }
        path.push(next);
    }
}

#[test]
fn the_checks_find_what_they_look_for() {
    let module = ["a", "b"].map(str::to_owned);
    let code = "use std::io;\npub use crate::{x::{Y, z::W}, v};\nuse super::{self, c::D};\n";
    let found: Vec<_> = imports(code, &module).iter().map(|path| path.join("/")).collect();
    assert_eq!(found, ["x/Y", "x/z/W", "v", "a/self", "a/c/D"]);
    let arrows = |pairs: &[(&'static str, &'static str)]| {
        let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, to) in pairs {
            arrows.entry(from).or_default().insert(to);
        }
        arrows
    };
    assert_eq!(circle(&arrows(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = circle(&arrows(&[("a", "b"), ("b", "c"), ("c", "b")])).expect("a circle");
    assert_eq!(found, ["b", "c", "b"]);
}
