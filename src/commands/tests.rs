//! The frame of the command line: help that teaches, exit codes, and errors in both formats.

use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_command_line_is_well_formed() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_command_teaches_by_an_example() {
    fn visit(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                visit(sub, &path);
            } else {
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(&path), "the help of `{path}` shows no call of it");
            }
        }
    }
    visit(&CommandLine::command(), "hydrant");
}

#[test]
fn a_wrong_call_is_usage_and_says_so_in_the_wanted_format() {
    let error = CommandLine::try_parse_from(["hydrant", "check", "--nonsense"]).unwrap_err();
    let failure = Failure::from_clap(&error);
    assert_eq!(failure.kind(), Kind::Usage);
    assert!(failure.render(Format::Text).contains("--nonsense"));
    let json: serde_json::Value = serde_json::from_str(&failure.render(Format::Json)).unwrap();
    assert_eq!(json["error"]["code"], "usage");
    assert!(json["error"]["message"].as_str().unwrap().contains("--nonsense"));
    for (words, format) in [
        (vec!["hydrant", "x", "--output", "json"], Format::Json),
        (vec!["hydrant", "--output=json", "x"], Format::Json),
        (vec!["hydrant", "json"], Format::Text),
    ] {
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        assert_eq!(Format::wanted_by(&words), format, "{words:?}");
    }
}

/// Goal: whoever calls us from a program learns what is wrong with the call, not only that something is.
#[test]
fn the_message_of_a_wrong_call_holds_what_is_missing_and_what_is_possible() {
    let message = |words: &[&str]| {
        let error = CommandLine::try_parse_from(words).unwrap_err();
        let json: serde_json::Value = serde_json::from_str(&Failure::from_clap(&error).render(Format::Json)).unwrap();
        json["error"]["message"].as_str().unwrap().to_owned()
    };
    for (words, detail) in [
        (&["hydrant", "run"][..], "were not provided: <FILE>"),
        (&["hydrant", "--output", "xml", "init"], "possible values: text, json"),
        (&["hydrant", "chek", "a.yaml"], "a similar subcommand exists: 'check'"),
        (&["hydrant", "drain", "--timeout", "soon"], "`soon` is not a duration"),
    ] {
        let message = message(words);
        assert!(message.contains(detail) && !message.contains("Usage:") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn a_value_for_programs_stands_beside_the_message() {
    let failure = Failure::failed("not all").with_code("timeout").with_value("waiting", serde_json::json!([1]));
    assert_eq!(failure.render(Format::Text), "error: not all\n");
    let json: serde_json::Value = serde_json::from_str(&failure.render(Format::Json)).unwrap();
    assert_eq!((&json["error"]["code"], &json["error"]["waiting"]), (&"timeout".into(), &serde_json::json!([1])));
}

#[test]
fn a_failure_has_code_message_and_place_for_programs_and_one_line_for_people() {
    let failure = Failure::damage("frame does not match its checksum").at("log/0000.seg").with_code("damaged_frame");
    assert_eq!(failure.render(Format::Text), "error: log/0000.seg: frame does not match its checksum\n");
    let expected = "{\"error\":{\"at\":\"log/0000.seg\",\"code\":\"damaged_frame\",\"message\":\"frame does not match its checksum\"}}\n";
    assert_eq!(failure.render(Format::Json), expected);
}

#[test]
fn exit_codes_are_the_documented_ones() {
    for (failure, code) in [
        (Failure::failed(""), 1),
        (Failure::usage(""), 2),
        (Failure::configuration(""), 3),
        (Failure::damage(""), 4),
        (Failure::reader_gone(), 0),
    ] {
        assert_eq!(format!("{:?}", failure.exit_code()), format!("{:?}", ExitCode::from(code)));
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure_worth_a_word() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let failure = Output::to(Format::Text, Gone).say("hello").unwrap_err();
    assert_eq!((failure.kind(), failure.render(Format::Text).as_str()), (Kind::ReaderGone, ""));
}
