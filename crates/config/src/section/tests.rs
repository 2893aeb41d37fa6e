//! Tables that are read key by key, and the errors of their files.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::value::{boolean, integer};

/// The errors of a file, one a line.
fn errors<T: std::fmt::Debug>(
    text: &str,
    read: impl FnOnce(&mut Section<'_>) -> Result<T, Invalid>,
) -> String {
    parse(text, read).expect_err("an invalid file").to_string()
}

#[test]
fn each_value_of_a_list_is_checked() {
    let read = |file: &mut Section<'_>| file.list("ports", |value| integer(value, 1..=9_u16));
    assert_eq!(parse("", read), Ok(None));
    assert_eq!(parse("ports = []", read), Ok(Some(vec![])));
    assert_eq!(parse("ports = [1, 2]", read), Ok(Some(vec![1, 2])));
    let shown = errors("ports = [\n0,\n1,\n'a',\n]", read);
    let expected = "line 2: ports[0]: '0' must be 1 to 9\n\
                    line 4: ports[2]: must be an integer, and is of type string";
    assert_eq!(shown, expected);
    assert_eq!(
        errors("ports = 1", read),
        "line 1: ports: must be an array, and is of type integer"
    );
}

#[test]
fn one_value_stands_for_a_list() {
    let read = |file: &mut Section<'_>| file.one_or_more("names", string);
    assert_eq!(parse("", read), Ok(None));
    assert_eq!(parse("names = 'a'", read), Ok(Some(vec!["a".to_owned()])));
    assert_eq!(
        parse("names = ['a', 'b']", read).map(|names| names.map(|all| all.len())),
        Ok(Some(2))
    );
    assert_eq!(errors("names = []", read), "line 1: names: must not be empty: omit it");
    assert_eq!(
        errors("names = 1", read),
        "line 1: names: must be a string, and is of type integer"
    );
}

#[test]
fn required_value_stands_for_a_list_that_is_not_empty() {
    let read = |file: &mut Section<'_>| file.required_one_or_more("names", string);
    assert_eq!(parse("names = 'a'", read), Ok(vec!["a".to_owned()]));
    assert_eq!(parse("names = ['a', 'b']", read).map(|names| names.len()), Ok(2));
    assert_eq!(errors("", read), "line 1: names: is missing");
    assert_eq!(errors("names = []", read), "line 1: names: must not be empty");
    let shown = errors("names = [\n'a',\n1]", read);
    assert_eq!(shown, "line 3: names[1]: must be a string, and is of type integer");
}

#[test]
fn tables_can_be_keyed_by_free_names() {
    let read = |file: &mut Section<'_>| {
        let read = file.named_tables("issuer", |name, issuer| {
            issuer.required("url", string).map(|url| format!("{name}={url}"))
        })?;
        read.into_iter().collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(parse("", read), Ok(vec![]));
    let text = "[issuer.b]\nurl = '1'\n[issuer.'a/']\nurl = '2'";
    let mut found = parse(text, read).expect("valid");
    found.sort();
    assert_eq!(found, ["a/=2", "b=1"]);
    let shown = errors("[issuer]\nb = 1\n[issuer.\"a\\n\"]\nkey = 2", read);
    let expected = "line 2: issuer.b: must be a table, and is of type integer\n\
                    line 3: issuer.a\\n.url: is missing\n\
                    line 4: issuer.a\\n.key: is no known key";
    assert_eq!(shown, expected);
    assert_eq!(
        errors("issuer = 1", read),
        "line 1: issuer: must be a table, and is of type integer"
    );
}

#[test]
fn errors_of_nested_tables_have_their_paths() {
    let read = |file: &mut Section<'_>| {
        let routes = file.tables("routes", |route| {
            route.table("rate", |rate| rate.required("burst", |value| integer(value, 1_u32..)))
        })?;
        routes.into_iter().collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(parse("[[routes]]\nrate.burst = 2\n[[routes]]", read), Ok(vec![Some(2), None]));
    let shown =
        errors("routes = [\n{ rate = {} },\n{ rate = { burst = 0 } },\n7,\n]\nrate = 1", read);
    let expected = "line 2: routes[0].rate.burst: is missing\n\
                    line 3: routes[1].rate.burst: '0' must be 1 or more\n\
                    line 4: routes[2]: must be a table, and is of type integer\n\
                    line 6: rate: is no known key";
    assert_eq!(shown, expected);
}

#[test]
fn valid_result_with_a_recorded_error_is_an_error() {
    let shown = errors("other = true", |file| Ok(file.has("other")));
    assert_eq!(shown, "line 1: other: is no known key");
    let shown = errors("a = 1", |file| {
        let _ = file.read("a", boolean);
        Ok(())
    });
    assert_eq!(shown, "line 1: a: must be true or false, and is of type integer");
}

#[test]
fn errors_of_a_named_file_have_its_lines() {
    let directory = TempDir::new().expect("a directory");
    let read = |file: &mut Section<'_>| {
        file.toml_file("keys", directory.path(), |keys| keys.required("id", string))
    };
    let path = directory.path().join("keys.toml");
    fs::write(&path, "id = 'a'").expect("a file");
    assert_eq!(parse("keys = 'keys.toml'", read), Ok(Some("a".to_owned())));
    fs::write(&path, "\nid = 1\nother = 1\n").expect("a file");
    let expected = "line 1: keys: keys.toml, line 2: id: must be a string, and is of type integer\n\
                    line 1: keys: keys.toml, line 3: other: is no known key";
    assert_eq!(errors("keys = 'keys.toml'", read), expected);
    fs::write(&path, b"\n\xff").expect("a file");
    assert_eq!(
        errors("keys = 'keys.toml'", read),
        "line 1: keys: keys.toml, line 2: must be UTF-8"
    );
    assert!(errors("keys = 'no.toml'", read).starts_with("line 1: keys: cannot read no.toml: "));
}
