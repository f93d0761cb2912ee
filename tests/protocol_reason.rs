//! Codes and reasons: the table of `protocol.md` section 4.

use std::collections::BTreeSet;

use ringroom::protocol::error::Reason;

/// The page's table, row by row.
const TABLE: &[(u16, &[&str])] = &[
    (0, &["bye"]),
    (400, &["malformed", "bad_field", "unknown_type", "protocol_error", "bad_frame"]),
    (401, &["hello_first", "bad_token", "token_expired"]),
    (403, &["forbidden", "not_joined"]),
    (408, &["handshake_timeout", "frame_timeout", "idle"]),
    (409, &["replaced"]),
    (410, &["kicked"]),
    (413, &["frame_too_large", "body_too_large"]),
    (429, &["rate_limited", "too_many_rooms", "too_many_sessions", "slow_consumer"]),
    (500, &["internal"]),
    (503, &["overloaded", "draining", "log_unavailable"]),
    (505, &["version"]),
];

#[test]
fn every_reason_has_its_own_name_and_the_code_of_the_table() {
    let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len(), "two reasons share a name");
    let pairs: BTreeSet<_> = Reason::ALL.iter().map(|reason| (reason.code(), reason.name())).collect();
    let expected: BTreeSet<_> = TABLE.iter().flat_map(|&(code, names)| names.iter().map(move |&name| (code, name))).collect();
    assert_eq!(pairs, expected);
}
