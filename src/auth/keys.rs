//! The keys that tokens are checked with, and the check itself: a pure function of token, keys and time.
//!
//! Each key has one algorithm, told by its file: a PEM of an RSA key is RS256, of a P-256 key ES256, of an Ed25519 key EdDSA; what is no PEM is a
//! secret, HS256. A token is tried with the keys of the algorithm that it names and with no others, so that a public key can't be used as a secret.
//! Never prints a key. The signature and the form are the library's business; the times are ours, because they come in as a value.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};

use super::Denied;
use super::claims::Claims;
use crate::chat::Grant;
use crate::config::Auth;
use crate::ids::UserName;

/// Bytes of a key file: no key is as large, a wrong path may be.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// RFC 7518, section 3.2: a secret as long as the hash, at least.
pub const SECRET_BYTES_MIN: usize = 32;
/// A shorter RSA key (2,048 bits in DER) is not worth the name, and the library would refuse its signatures.
const RSA_DER_BYTES_MIN: usize = 256 + 8;
/// An uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    pub user: UserName,
    /// Milliseconds since 1970, leeway taken off.
    pub begin_ms: u64,
    /// Its end has the leeway added.
    pub grant: Grant,
}

impl Pass {
    /// The pass, if it counts at this time.
    pub(super) fn at(self, now_unix_ms: u64) -> Result<Self, Denied> {
        let end_ms = self.grant.expires_at.map_or(0, std::num::NonZeroU64::get);
        if now_unix_ms >= end_ms {
            return Err(Denied::Expired);
        }
        if now_unix_ms < self.begin_ms { Err(Denied::Bad) } else { Ok(self) }
    }
}

/// A key file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    Unreadable(String),
    Bad(String),
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyError::Unreadable(why) | KeyError::Bad(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for KeyError {}

/// What is asked of every token, whatever its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Empty: anything.
    pub issuer: String,
    pub audience: String,
    pub leeway_s: u64,
}

impl Checks {
    pub fn of(auth: &Auth) -> Self {
        Self { issuer: auth.issuer.clone(), audience: auth.audience.clone(), leeway_s: auth.leeway_s }
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm.of_library());
        let mut required = vec!["exp", "sub"];
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        validation.validate_aud = !self.audience.is_empty();
        if !self.audience.is_empty() {
            validation.set_audience(&[&self.audience]);
            required.push("aud");
        }
        if !self.issuer.is_empty() {
            validation.set_issuer(&[&self.issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

struct VerifyKey {
    /// The file's name without its ending: what a `kid` may say.
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

/// All keys that count now.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<VerifyKey>,
    checks: Checks,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.id, key.algorithm))).finish()
    }
}

impl KeySet {
    pub fn new(checks: Checks) -> Self {
        Self { keys: Vec::new(), checks }
    }

    /// Reads all files of the configuration, or says which one can't be used and why.
    pub fn load(auth: &Auth) -> Result<Self, KeyError> {
        let mut set = Self::new(Checks::of(auth));
        for file in &auth.keys {
            let bytes = read(Path::new(file)).map_err(|why| {
                KeyError::Unreadable(format!("can't read the key file {file}: {why}; check auth.keys and the file's rights"))
            })?;
            let id = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
            set.add(&id, &bytes).map_err(|why| KeyError::Bad(format!("the key file {file} can't be used: {why}")))?;
        }
        Ok(set)
    }

    /// Takes one key, as its file holds it.
    pub fn add(&mut self, id: &str, bytes: &[u8]) -> Result<(), &'static str> {
        let (algorithm, key) = read_key(bytes)?;
        let validation = self.checks.validation(algorithm);
        self.keys.push(VerifyKey { id: id.to_owned(), algorithm, key, validation });
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The verdict on a token at this time.
    pub fn check(&self, token: &str, now_unix_ms: u64) -> Result<Pass, Denied> {
        self.verify(token)?.at(now_unix_ms)
    }

    /// All of the check but the times, which are to be looked at again whenever the pass is used.
    pub(super) fn verify(&self, token: &str) -> Result<Pass, Denied> {
        let header = decode_header(token).map_err(|_| Denied::Bad)?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: whoever does not understand what stands there has to refuse.
            return Err(Denied::Bad);
        }
        let named = |key: &&VerifyKey| header.kid.as_ref().is_none_or(|kid| *kid == key.id);
        let fits = |key: &&VerifyKey| key.algorithm.of_library() == header.alg;
        for key in self.keys.iter().filter(fits).filter(named) {
            if let Ok(found) = decode::<Claims>(token, &key.key, &key.validation) {
                return found.claims.pass(self.checks.leeway_s);
            }
        }
        Err(Denied::Bad)
    }
}

/// A key file's bytes, and no more than a key may have.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, std::io::Error> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("larger than 64 KiB: is it the right file?"));
    }
    Ok(bytes)
}

fn read_key(bytes: &[u8]) -> Result<(Algorithm, DecodingKey), &'static str> {
    let text = String::from_utf8_lossy(bytes);
    let Some(begin) = text.find("-----BEGIN ") else { return read_secret(bytes) };
    let kind = text[begin..].trim_start_matches("-----BEGIN ");
    if kind.contains("PRIVATE KEY-----") {
        return Err("it holds a private key, which a server must not have: take the public one (openssl pkey -in FILE -pubout)");
    }
    if !kind.starts_with("PUBLIC KEY-----") && !kind.starts_with("RSA PUBLIC KEY-----") {
        return Err("it is a PEM, but no public key (certificates: openssl x509 -in FILE -noout -pubkey)");
    }
    let pem = &bytes[bytes.windows(11).position(|window| window == b"-----BEGIN ").unwrap_or(0)..];
    let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Ok((Algorithm::EdDsa, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let fits = length(&key) == P256_POINT_BYTES;
        return if fits { Ok((Algorithm::Es256, key)) } else { Err("it is an EC key, but not of P-256 (ES256)") };
    }
    match DecodingKey::from_rsa_pem(pem) {
        Ok(key) if length(&key) >= RSA_DER_BYTES_MIN => Ok((Algorithm::Rs256, key)),
        Ok(_) => Err("an RSA key needs at least 2,048 bits"),
        Err(_) => Err("the public key in it is damaged, or neither RSA, P-256 nor Ed25519"),
    }
}

fn read_secret(bytes: &[u8]) -> Result<(Algorithm, DecodingKey), &'static str> {
    let secret = secret(bytes);
    if secret.len() < SECRET_BYTES_MIN {
        return Err("a secret needs at least 32 bytes (openssl rand -hex 32)");
    }
    Ok((Algorithm::Hs256, DecodingKey::from_secret(secret)))
}

/// A secret as it is signed with: of a text, the line end that editors and shells leave behind is no part.
pub fn secret(bytes: &[u8]) -> &[u8] {
    let is_text = bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
    if is_text { bytes.trim_ascii_end() } else { bytes }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    const NOW_S: u64 = 1_700_000_000;

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)).unwrap()
    }

    fn set(checks: Checks, files: &[&str]) -> KeySet {
        let mut set = KeySet::new(checks);
        for name in files {
            set.add(name.split('.').next().unwrap(), &file(name)).unwrap();
        }
        set
    }

    fn all() -> KeySet {
        set(Checks::default(), &["hs.secret", "rsa.pem", "ec.pem", "ed.pem"])
    }

    fn signer(name: &str) -> (Header, EncodingKey) {
        let bytes = file(name);
        let (algorithm, key) = match name {
            "rsa.private.pem" => (Algorithm::Rs256, EncodingKey::from_rsa_pem(&bytes)),
            "ec.private.pem" => (Algorithm::Es256, EncodingKey::from_ec_pem(&bytes)),
            "ed.private.pem" => (Algorithm::EdDsa, EncodingKey::from_ed_pem(&bytes)),
            _ => (Algorithm::Hs256, Ok(EncodingKey::from_secret(secret(&bytes)))),
        };
        (Header::new(algorithm.of_library()), key.unwrap())
    }

    fn token(name: &str, claims: &Value) -> String {
        let (header, key) = signer(name);
        encode(&header, claims, &key).unwrap()
    }

    fn claims(rest: Value) -> Value {
        let mut claims = json!({"sub": "alice", "exp": NOW_S + 60});
        claims.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        claims
    }

    fn check(set: &KeySet, token: &str) -> Result<String, Denied> {
        set.check(token, NOW_S * 1_000).map(|pass| pass.user.as_str().to_owned())
    }

    const SIGNERS: [&str; 4] = ["hs.secret", "rsa.private.pem", "ec.private.pem", "ed.private.pem"];

    /// The token with another header; nothing else changes.
    fn with_header(token: &str, header: &Value) -> String {
        let (_, rest) = token.split_once('.').unwrap();
        format!("{}.{rest}", base64(header.to_string().as_bytes()))
    }

    fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)).collect();
        bits.chunks(6).map(|six| char::from(LETTERS[(0..6).fold(0, |n, i| n * 2 + usize::from(*six.get(i).unwrap_or(&0)))])).collect()
    }

    #[test]
    fn a_token_of_each_algorithm_is_good_with_its_key_and_with_no_other() {
        for (index, name) in SIGNERS.iter().enumerate() {
            let token = token(name, &claims(json!({})));
            assert_eq!(check(&all(), &token), Ok("alice".into()), "{name}");
            let files = ["hs.secret", "rsa.pem", "ec.pem", "ed.pem"];
            let others: Vec<&str> = files.into_iter().enumerate().filter(|(i, _)| *i != index).map(|(_, file)| file).collect();
            assert_eq!(check(&set(Checks::default(), &others), &token), Err(Denied::Bad), "{name}");
        }
        let stranger = token("other.secret", &claims(json!({})));
        assert_eq!(check(&all(), &stranger), Err(Denied::Bad));
    }

    #[test]
    fn a_token_without_signature_is_refused() {
        let good = token("ed.private.pem", &claims(json!({})));
        let body = good.split('.').nth(1).unwrap();
        for alg in ["none", "None", "NONE", "nOnE"] {
            let header = base64(json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes());
            for token in [format!("{header}.{body}."), format!("{header}.{body}"), with_header(&good, &json!({"alg": alg}))] {
                assert_eq!(check(&all(), &token), Err(Denied::Bad), "{alg}");
            }
        }
        let (unsigned, _) = good.rsplit_once('.').unwrap();
        assert_eq!(check(&all(), &format!("{unsigned}.")), Err(Denied::Bad));
    }

    #[test]
    fn a_public_key_is_never_used_as_a_secret() {
        for file_name in ["rsa.pem", "ec.pem", "ed.pem"] {
            let public = file(file_name);
            for secret in [&public[..], public.trim_ascii_end()] {
                let token = encode(&Header::default(), &claims(json!({})), &EncodingKey::from_secret(secret)).unwrap();
                assert_eq!(check(&set(Checks::default(), &[file_name]), &token), Err(Denied::Bad));
                assert_eq!(check(&all(), &token), Err(Denied::Bad));
            }
        }
    }

    #[test]
    fn the_header_says_nothing_that_the_signature_does_not_cover() {
        for name in SIGNERS {
            let good = token(name, &claims(json!({})));
            for alg in ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "ES384", "EdDSA"] {
                let swapped = with_header(&good, &json!({"alg": alg}));
                assert_eq!(check(&all(), &swapped), Err(Denied::Bad), "{name} as {alg}");
            }
        }
    }

    #[test]
    fn it_ends_with_the_millisecond_and_a_second_late_is_expired() {
        let (set, token) = (all(), token("ed.private.pem", &claims(json!({"exp": NOW_S}))));
        assert!(set.check(&token, NOW_S * 1_000 - 1).is_ok());
        assert_eq!(set.check(&token, NOW_S * 1_000).map(|_| ()), Err(Denied::Expired));
        assert_eq!(set.check(&token, NOW_S * 1_000 + 1_000).map(|_| ()), Err(Denied::Expired));
        let lenient = self::set(Checks { leeway_s: 5, ..Checks::default() }, &["ed.pem"]);
        let pass = lenient.check(&token, NOW_S * 1_000 + 4_999).unwrap();
        assert_eq!(pass.grant.expires_at.unwrap().get(), NOW_S * 1_000 + 5_000, "a session lasts as long as its token");
        assert_eq!(lenient.check(&token, NOW_S * 1_000 + 5_000).map(|_| ()), Err(Denied::Expired));
    }

    #[test]
    fn a_token_of_the_future_is_not_good_yet() {
        let early = token("hs.secret", &claims(json!({"nbf": NOW_S + 3})));
        assert_eq!(check(&all(), &early), Err(Denied::Bad));
        let lenient = set(Checks { leeway_s: 3, ..Checks::default() }, &["hs.secret"]);
        assert_eq!(check(&lenient, &early), Ok("alice".into()));
        assert_eq!(check(&all(), &token("hs.secret", &claims(json!({"nbf": NOW_S})))), Ok("alice".into()));
    }

    #[test]
    fn issuer_and_audience_are_checked_where_they_are_set() {
        let checks = Checks { issuer: "https://id.example".into(), audience: "chat".into(), leeway_s: 0 };
        let strict = set(checks, &["hs.secret"]);
        let verdict = |rest: Value| check(&strict, &token("hs.secret", &claims(rest))).is_ok();
        assert!(verdict(json!({"iss": "https://id.example", "aud": "chat"})));
        assert!(verdict(json!({"iss": "https://id.example", "aud": ["mail", "chat"]})));
        for bad in [
            json!({}),
            json!({"iss": "https://id.example"}),
            json!({"aud": "chat"}),
            json!({"iss": "https://id.example", "aud": "mail"}),
            json!({"iss": "https://id.example", "aud": []}),
            json!({"iss": "https://evil.example", "aud": "chat"}),
            json!({"iss": "https://id.example.evil", "aud": "chat"}),
            json!({"iss": 7, "aud": "chat"}),
        ] {
            assert!(!verdict(bad.clone()), "{bad}");
        }
        assert!(check(&all(), &token("hs.secret", &claims(json!({"iss": "x", "aud": "y"})))).is_ok());
    }

    #[test]
    fn any_of_several_keys_is_good_and_a_kid_names_one() {
        let both = set(Checks::default(), &["hs.secret", "other.secret"]);
        let signed = |name: &str, kid: Option<&str>| {
            let (mut header, key) = signer(name);
            header.kid = kid.map(str::to_owned);
            encode(&header, &claims(json!({})), &key).unwrap()
        };
        for name in ["hs", "other"] {
            let file = format!("{name}.secret");
            assert!(check(&both, &signed(&file, None)).is_ok());
            assert!(check(&both, &signed(&file, Some(name))).is_ok());
            assert_eq!(check(&both, &signed(&file, Some("unknown"))), Err(Denied::Bad));
        }
        assert_eq!(check(&both, &signed("hs.secret", Some("other"))), Err(Denied::Bad));
        let rotated = set(Checks::default(), &["other.secret"]);
        assert_eq!(check(&rotated, &signed("hs.secret", None)), Err(Denied::Bad));
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_refused() {
        let (mut header, key) = signer("hs.secret");
        header.crit = Some(vec!["b64".into()]);
        let token = encode(&header, &claims(json!({})), &key).unwrap();
        assert_eq!(check(&all(), &token), Err(Denied::Bad));
    }

    #[test]
    fn no_text_panics_the_check() {
        let good = token("ed.private.pem", &claims(json!({})));
        let set = all();
        for end in 0..good.len() {
            assert!(check(&set, &good[..end]).is_err());
            let mut broken = good.clone().into_bytes();
            broken[end] = if broken[end] == b'A' { b'B' } else { b'A' };
            // The last letter of a part has bits that stand for nothing; a decoder may pass over them or refuse.
            let verdict = check(&set, &String::from_utf8(broken).unwrap());
            assert!(verdict.is_err() || good.as_bytes().get(end + 1).is_none_or(|next| *next == b'.'), "changed at {end}");
        }
        for text in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            "é.é.é",
            &".".repeat(4_000),
            &"A".repeat(4_000),
            &format!("{}.{}.", "A".repeat(2_000), "A".repeat(2_000)),
        ] {
            assert_eq!(check(&set, text), Err(Denied::Bad));
        }
    }

    #[test]
    fn files_that_are_no_keys_are_refused_with_the_reason() {
        let refused = |bytes: &[u8]| KeySet::default().add("k", bytes).unwrap_err();
        for private in ["rsa.private.pem", "ec.private.pem", "ed.private.pem"] {
            assert!(refused(&file(private)).contains("private key"), "{private}");
        }
        assert!(refused(&file("p384.pem")).contains("P-256"));
        assert!(refused(&file("rsa1024.pem")).contains("2,048"));
        assert!(refused(b"").contains("32 bytes"));
        assert!(refused(b"0123456789012345678901234567890\n\n").contains("32 bytes"));
        assert!(refused(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("no public key"));
        assert!(refused(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").contains("damaged"));
        let shown = format!("{:?}", set(Checks::default(), &["hs.secret"]));
        assert!(!shown.contains(std::str::from_utf8(secret(&file("hs.secret"))).unwrap()), "{shown}");
    }

    #[test]
    fn only_a_texts_line_end_is_no_part_of_a_secret() {
        assert_eq!(secret(b"abc\r\n"), b"abc");
        assert_eq!(secret(b"\x80abc\n"), b"\x80abc\n");
    }
}
