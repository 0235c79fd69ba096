//! Nothing that could be a secret is left, and what is no secret is.

use super::*;

fn known() -> Vec<String> {
    vec!["secret_access_key".to_owned(), "session_token".to_owned()]
}

fn check(text: &str, masked: &str) {
    assert_eq!(Masked::new(text, by_text(text, &known()), std::iter::empty()).text(), masked);
}

#[test]
fn values_of_secret_keys_are_stars() {
    check("secret_access_key: hunter2\nregion: a\n", "secret_access_key: ***\nregion: a\n");
    check(
        "  - secret_access_key: hunter2\n    access_key_id: dev",
        "  - secret_access_key: ***\n    access_key_id: dev",
    );
    check("{ a: 1, secret_access_key: hunter2, b: 2 }", "{ a: 1, secret_access_key: ***");
    check("# secret_access_key: hunter2", "# secret_access_key: ***");
    check("\"session_token\": 'hunter2'", "\"session_token\": ***");
    check("my_password = hunter2", "my_password = ***");
}

#[test]
fn values_of_misspelled_secret_keys_are_stars() {
    for key in ["secert_acess_key", "secret-access-key", "SECRET_ACCESS_KEY", "sesion_tokn", "secretaccesskey"] {
        check(&format!("{key}: hunter2"), &format!("{key}: ***"));
    }
}

#[test]
fn what_is_indented_below_a_secret_key_is_stars() {
    check("a:\n  secret: |\n    hunter2\n    k: hunter2\n  b: 1\n", "a:\n  secret: ***\n    ***\n    ***\n  b: 1\n");
    check("secret:\n  hunter2\nb: 1", "secret:\n  ***\nb: 1");
    check("secret: \"hunter2\n  hunter2\"\nb: 1", "secret: ***\n  ***\nb: 1");
}

#[test]
fn references_are_shown() {
    for text in [
        "secret_access_key: { env: NAME }",
        "secret_access_key: {file: /run/secrets/key }",
        "secret_access_key:\n  env: NAME\nb: 1",
        "tokens:\n  hints:\n    size: 1MiB\n",
    ] {
        check(text, text);
    }
}

#[test]
fn names_and_passwords_in_addresses_are_stars() {
    check("endpoint: http://user:hunter2@host:9000/path", "endpoint: http://***@host:9000/path");
    check("endpoint: \"https://hunter2@host\"", "endpoint: \"https://***@host\"");
    check("endpoint: http://host/a@b", "endpoint: http://host/a@b");
}

#[test]
fn places_below_secrets_are_secret_and_names_of_streams_tell_nothing() {
    let path = |text: &str| text.split('/').map(|part| Step::Key(part.to_owned())).collect::<DocPath>();
    for (at, secret) in [
        ("server/secret_access_key", true),
        ("server/secret_access_key/value", true),
        ("server/secret_access_key/env", false),
        ("server/secret_access_key/env/deeper", true),
        ("server/region", false),
        ("streams/secret-events/retry_for", false),
        ("streams/secret-events/password", true),
        ("stores/tokens/s3/bucket", false),
    ] {
        assert_eq!(is_secret(&path(at), "NAME", &known()), secret, "{at}");
    }
}

#[test]
fn ranges_are_found_again_in_the_masked_text() {
    let text = "ab secret cd longer-secret ef";
    let masked = Masked::new(text, [13..26, 3..9, 5..9], std::iter::empty());
    assert_eq!(masked.text(), "ab *** cd *** ef");
    for (original, shown) in [("ab", "ab"), ("secret", "***"), ("cd", "cd"), ("longer-secret", "***"), ("ef", "ef")] {
        let start = text.find(original).unwrap();
        let range = masked.range(&(start..start + original.len()));
        assert_eq!(masked.text().get(range), Some(shown), "{original}");
    }
    // Part of a secret is all of its stars.
    assert_eq!(masked.text().get(masked.range(&(5..7))), Some("***"));
}
