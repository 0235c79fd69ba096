//! Places in documents of every layout.

use hydrant_core::problem::DocPath;

use super::*;

const TEXT: &str = "\
a: 1
b:
  - x
  - { c: 'é', d: [1, 2] }
\"e f\": |
  long
  text
g: &g { h: 5 }
i: *g
";

fn path(text: &str) -> DocPath {
    let step = |part: &str| part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Index);
    text.split('/').filter(|part| !part.is_empty()).map(step).collect()
}

#[test]
fn a_scalar_is_shown_itself_and_a_collection_by_its_key() {
    let document = Document::new("test.yaml", TEXT.to_owned());
    for (at, shown) in [
        ("a", "1"),
        ("b", "b"),
        ("b/0", "x"),
        ("b/1/c", "'é'"),
        ("b/1/d", "d"),
        ("b/1/d/1", "2"),
        ("e f", "long"),
        ("g/h", "5"),
        ("i", "*g"),
        // What does not exist is shown at what holds it.
        ("b/7/z", "b"),
        ("g/nothing", "g"),
        ("i/h", "*g"),
    ] {
        let range = document.value(&path(at));
        assert_eq!(document.text().get(range), Some(shown), "{at}");
    }
}

#[test]
fn keys_are_found_whatever_they_hold() {
    let document = Document::new("test.yaml", TEXT.to_owned());
    for (at, shown) in [("a", "a"), ("b/1/c", "c"), ("e f", "\"e f\""), ("b/0", "x")] {
        let range = document.key(&path(at));
        assert_eq!(document.text().get(range), Some(shown), "{at}");
    }
}

/// The text without the values that begin with these words.
#[track_caller]
fn without(text: &str, values: &[&str]) -> String {
    let document = Document::new("test.yaml", text.to_owned());
    let blank = values.iter().map(|value| document.at(text.find(value).unwrap()).unwrap()).collect();
    document.without(&blank)
}

#[test]
fn what_is_left_of_a_document_stays_where_it_was() {
    assert_eq!(without("a: 1\nb:\n  c: 'é'\n  d: 2\n", &["'é'"]), "a: 1\nb:\n        \n  d: 2\n");
    assert_eq!(without("a: { b: 1, c: [2], d: 3 }\n", &["1", "c"]), "a: {               d: 3 }\n");
    assert_eq!(without("a: { b: 1, c: 2 }\n", &["2"]), "a: { b: 1,      }\n");
    assert_eq!(without("a:\n  b:\n  c: 1\nd: 2\n", &["b", "c"]), "a:\n    \n      \nd: 2\n");
    assert_eq!(without("a:\n  b: |\n    x\n    y\n  c: 1\n", &["b"]), "a:\n      \n     \n     \n  c: 1\n");
    // What is inside of what is gone is gone once.
    assert_eq!(without("a: { b: 1 }\nc: 2\n", &["a", "b"]), "           \nc: 2\n");
}

#[test]
fn it_is_known_where_a_text_stops_being_yaml() {
    let broken = |text: &str| Document::new("test.yaml", text.to_owned()).broken().map(|broken| broken.offset);
    assert_eq!(broken("a: 1\n"), None);
    assert_eq!(broken("a: 1\nb: [\nc: 2\n").map(|at| at >= 6), Some(true));
}

#[test]
fn places_count_from_one_and_in_characters() {
    let document = Document::new("test.yaml", TEXT.to_owned());
    let after_accent = TEXT.find("d: [").unwrap();
    let place = document.line_column(after_accent);
    assert_eq!((place.line, place.column), (4, 15));
    assert_eq!(document.offset(place), after_accent);
    assert_eq!(document.line_column(0), LineColumn { line: 1, column: 1 });
    assert_eq!(document.offset(LineColumn { line: 99, column: 1 }), TEXT.len());
}

#[test]
fn the_path_of_a_place_is_that_of_the_innermost_value() {
    let document = Document::new("test.yaml", TEXT.to_owned());
    for (text, at) in [("1\n", "a"), ("'é'", "b/1/c"), ("2]", "b/1/d/1"), ("d: [", "b/1/d"), ("*g", "i")] {
        let offset = TEXT.find(text).unwrap();
        assert_eq!(document.path_at(offset), path(at), "{text}");
    }
}

#[test]
fn of_a_document_that_breaks_off_the_part_before_is_known() {
    let document = Document::new("test.yaml", "a: 1\nb: { c: 2, d: [\ne: }".to_owned());
    assert_eq!(document.text().get(document.value(&path("b/c"))), Some("2"));
    assert_eq!(document.text().get(document.value(&path("b/d"))), Some("d"));
}

#[test]
fn what_is_nested_too_deep_is_left_out() {
    let document = Document::new("test.yaml", "[".repeat(200));
    assert!(document.nodes.len() <= DEPTH_MAX + 1);
}
