//! What holds for any bytes in a token: shared by the fuzz target and the corpus replay. A check panics where the property is broken.

use ringroom::auth::{Checks, Denied, KeySet};
use ringroom::ids::UserName;

/// The secret of tests/keys, and the key that it makes.
const SECRET: &[u8] = include_bytes!("../keys/hs.secret");
/// When every token of the checks is looked at: 2023-11-14.
const NOW_S: u64 = 1_700_000_000;

fn keys() -> KeySet {
    let mut keys = KeySet::new(Checks { leeway_s: 5, ..Checks::default() });
    keys.add("hs", SECRET).expect("a key of the tests");
    keys
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let word = piece.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        text.extend((0..=piece.len()).map(|i| char::from(LETTERS[(word >> (18 - 6 * i) & 63) as usize])));
    }
    text
}

/// Whatever stands in it, the token is signed by the right key.
fn sign(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let key = jsonwebtoken::EncodingKey::from_secret(ringroom::auth::secret(SECRET));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).expect("HS256 signs all");
    format!("{message}.{signature}")
}

const HEADER: &[u8] = br#"{"alg":"HS256"}"#;

/// The same bytes as a token, as a token's header and as its claims: the first lets nobody in, the others whom a second reader lets in.
pub(crate) fn token(bytes: &[u8]) -> &'static str {
    let keys = keys();
    let verdict = |token: &str| keys.check(token, NOW_S * 1_000).map(|pass| pass.user.as_str().to_owned());
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(verdict(text).is_err(), "a token that nobody has signed");
    }
    if verdict(&sign(bytes, br#"{"sub":"ann","exp":1700000060}"#)).is_ok() {
        let header: serde_json::Value = serde_json::from_slice(bytes).expect("a header that was taken is JSON");
        assert_eq!(header["alg"], "HS256");
        assert!(header["crit"].is_null() && (header["kid"].is_null() || header["kid"] == "hs"), "{header}");
    }
    match verdict(&sign(HEADER, bytes)) {
        Ok(user) => {
            let claims: serde_json::Value = serde_json::from_slice(bytes).expect("claims that were taken are JSON");
            assert_eq!(claims["sub"], user);
            assert!(UserName::parse(&user).is_ok());
            let seconds = |name: &str| claims[name].as_f64();
            assert!(seconds("exp").is_some_and(|exp| exp + 5.0 > NOW_S as f64), "{claims}");
            assert!(seconds("nbf").is_none_or(|nbf| nbf - 5.0 <= NOW_S as f64), "{claims}");
            "ok"
        }
        Err(Denied::Expired) => "expired",
        Err(_) => "bad",
    }
}
