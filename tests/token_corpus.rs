//! Replays the hostile tokens that were picked by hand, and those that fuzzing found.
//!
//! A file is what stands in a token's claims, under a good signature; its name begins with the verdict, up to the first dot. The same bytes are also tried
//! as a header and as a whole token.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "fuzz/token.rs"]
mod check;

#[test]
fn every_stored_token_is_judged_as_its_name_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/token");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 30, "{} lost files", folder.display());
    for file in files {
        let verdict = check::token(&fs::read(&file).unwrap());
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(name.split('.').next(), Some(verdict), "{name}");
    }
}

/// Claims that are nearly good.
fn claims() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\"ann\"".to_owned()),
        Just("1700000060".to_owned()),
        Just("1699999999.5".to_owned()),
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just(r#"[{"room":"a*","rights":["join"]}]"#.to_owned()),
        Just(r#"{"requests_per_s":1,"burst":1}"#.to_owned()),
        "[0-9]{1,20}",
        "\"[@a-z*.]{0,70}\"",
    ];
    let name = prop_oneof![Just("sub"), Just("exp"), Just("nbf"), Just("rooms"), Just("rate"), Just("alg"), Just("kid"), Just("crit")];
    prop::collection::vec((name, value), 0..6).prop_map(|members| {
        let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!(r#"{{"alg":"HS256","sub":"ann",{}"exp":1700000060}}"#, members.iter().map(|m| format!("{m},")).collect::<String>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_in_a_signed_token_is_understood_or_refused(text in claims(), cut in any::<u8>()) {
        check::token(text.as_bytes());
        check::token(&text.as_bytes()[..text.len() - usize::from(cut) % text.len()]);
    }

    #[test]
    fn no_bytes_are_too_strange_for_a_token(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check::token(&bytes);
    }
}
