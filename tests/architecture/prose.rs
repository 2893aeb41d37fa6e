//! Words: the share of comments that break the rules of CONTRIBUTING.md, and words that were
//! retired.

use std::collections::BTreeMap;

use super::source::{Source, sources};

/// Words by which code would speak, or people would be meant.
const SPEECH: [&str; 17] = [
    "tell", "tells", "told", "telling", "say", "says", "said", "saying", "hear", "hears", "heard",
    "who", "whoever", "whom", "nobody", "somebody", "anybody",
];
/// First words of a clause, or of a sentence whose subject stands elsewhere.
const CLAUSES: [&str; 24] = [
    "what", "whether", "who", "whoever", "whom", "whose", "of", "those", "it", "that", "how",
    "where", "when", "which", "why", "this", "these", "they", "its", "their", "nobody", "somebody",
    "there", "for",
];
/// Names of the past, each with the word that took its place.
const RETIRED: [(&str, &str); 31] = [
    ("Pulse", "Heartbeats"),
    ("Seat", "StreamHandle"),
    ("Homing", "Failback"),
    ("homecomings", "failbacks"),
    ("Enrolment", "RegisterAttempt"),
    ("Amendment", "Updater"),
    ("Lens", "SelectedView"),
    ("Tenancy", "Slot"),
    ("RanOut", "Expired"),
    ("Standing", "a state"),
    ("Verdict", "Due, Retryability"),
    ("Crowd", "TaskSet"),
    ("Bell", "WakeFlag"),
    ("Outlet", "SendBuffer"),
    ("Incomer", "Incoming"),
    ("Untold", "RequestLog, Loading"),
    ("Unhurried", "LossyWriter"),
    ("Spoken", "HttpVersion"),
    ("Inflow", "ResponseBody"),
    ("Passage", "Upgrade"),
    ("Turns", "Activity"),
    ("mistakes", "errors"),
    ("sit_down", "attach"),
    ("break_off", "fail"),
    ("deserted", "wait_unused"),
    ("dressed", "with_cors_and_compression"),
    ("introduced", "require_known"),
    ("passed_back", "map_response"),
    ("promised_form", "normalize_status"),
    ("return_interval", "failback_interval"),
    ("AsSet", "a standard name"),
];
#[test]
fn comments_do_not_speak() {
    let (mut words, mut speech) = (0, Vec::new());
    for source in sources() {
        for (line, _, text) in source.comments() {
            for word in prose(text).split(|character: char| !character.is_alphabetic()) {
                words += usize::from(!word.is_empty());
                if SPEECH.contains(&word.to_lowercase().as_str()) {
                    speech.push(format!("{}:{line}: {text}", source.path));
                }
            }
        }
    }
    println!("{} of {words} words in comments are of speech", speech.len());
    assert!(speech.len() * 1_000 < words, "{} of {words}: {speech:#?}", speech.len());
}

#[test]
fn docs_begin_with_the_thing_or_the_verb() {
    let (mut items, mut clauses) = (0, Vec::new());
    for source in sources() {
        let mut last = 0;
        for (line, kind, text) in source.comments() {
            if kind == "//" {
                continue;
            }
            if last + 1 != line {
                items += 1;
                let first = text.split(|character: char| !character.is_alphabetic()).next();
                if first.is_some_and(|word| CLAUSES.contains(&word.to_lowercase().as_str())) {
                    clauses.push(format!("{}:{line}: {text}", source.path));
                }
            }
            last = line;
        }
    }
    println!("{} of {items} docs begin with a clause", clauses.len());
    assert!(clauses.len() * 20 < items, "{} of {items}: {clauses:#?}", clauses.len());
}

#[test]
fn type_names_are_defined_once() {
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_for_development()) {
        let product = source.text.split("mod tests {").next().unwrap_or_default();
        for line in product.lines() {
            types.entry(defined_type(line).to_owned()).or_default().push(source.path.clone());
        }
    }
    types.retain(|name, files| !name.is_empty() && files.len() > 1);
    println!("{} type names are defined more than once: {:?}", types.len(), types.keys());
    assert!(types.len() < 15, "{types:#?}");
}

/// The name of the type that a line defines; empty for none.
fn defined_type(line: &str) -> &str {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let defines = ["struct", "enum", "trait", "union"];
    let name = words.next().filter(|word| defines.contains(word)).and_then(|_| words.next());
    let name = name.unwrap_or_default();
    let end = name.find(|character: char| !character.is_alphanumeric()).unwrap_or(name.len());
    &name[..end]
}

#[test]
fn retired_words_stay_retired() {
    let mut found = Vec::new();
    for source in sources() {
        if source.path == "tests/architecture/prose.rs" {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            let words =
                line.split(|character: char| !character.is_alphanumeric() && character != '_');
            for word in words {
                let retired = RETIRED.iter().find(|(retired, _)| *retired == word);
                if let Some((_, now)) = retired {
                    found.push(format!("{}:{}: {word}: use {now}", source.path, index + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The text without what stands in backticks: names of code are not prose.
fn prose(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_checks_find_what_they_look_for() {
    assert_eq!(defined_type("pub(crate) struct Lease<T> {"), "Lease");
    assert_eq!(defined_type("    pub enum Due { Expired }"), "Due");
    assert_eq!(defined_type("let x = struct_literal;"), "");
    assert_eq!(prose("says `told` and"), "says   and");
    let text = "//! a\n\nfn x() {} // not counted\n    /// What it is\n// plain".to_owned();
    let source = Source { path: "src/x.rs".into(), text };
    let comments: Vec<_> = source.comments().collect();
    assert_eq!(comments, [(1, "//!", "a"), (4, "///", "What it is"), (5, "//", "plain")]);
}
