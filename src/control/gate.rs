//! Who may come in: whoever shows the token; without one, only programs of this host that a browser has not been talked into being.
//!
//! A page on the web can make a browser send requests to 127.0.0.1. It can't choose `Host` or hide `Origin`; so where no token is asked for, `Host` has
//! to be a loopback address or `localhost`, and `Origin`, if there is one, the same host.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// Letters of a token; fewer can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// What a request has to show.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Why a file holds no token.
#[derive(Debug)]
pub enum TokenError {
    Unreadable(String),
    Bad(String),
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenError::Unreadable(why) | TokenError::Bad(why) => f.write_str(why),
        }
    }
}

impl Token {
    /// The token in a file; white space around it does not count.
    pub fn load(path: &str) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path)
            .map_err(|why| TokenError::Unreadable(format!("can't read admin.token_file {path}: {why}; check the path and its rights")))?;
        Self::parse(text.trim())
            .ok_or_else(|| TokenError::Bad(format!("admin.token_file {path}: needs {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits or signs without blanks (try: openssl rand -hex 32)")))
    }

    fn parse(text: &str) -> Option<Self> {
        let good = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(text.as_bytes().into()))
    }

    /// Takes as long whatever the first wrong letter is; that the length is wrong may be seen.
    fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// Whether the request may be looked at.
pub(super) fn check(token: Option<&Token>, headers: &HeaderMap) -> Result<(), Problem> {
    match token {
        Some(token) => check_token(token, headers),
        None => check_neighbour(headers),
    }
}

fn check_token(token: &Token, headers: &HeaderMap) -> Result<(), Problem> {
    let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    let shown = match shown.split_at_checked(7) {
        Some((scheme, shown)) if scheme.eq_ignore_ascii_case(b"bearer ") => shown,
        _ => return Err(Problem::new(401, "bad_token", "show the token: Authorization: Bearer ...")),
    };
    if token.is(shown) { Ok(()) } else { Err(Problem::new(401, "bad_token", "the token is not the one of admin.token_file")) }
}

fn check_neighbour(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    if !is_local(host) {
        return Err(Problem::new(403, "forbidden", "without a token, Host has to be a loopback address or localhost"));
    }
    match text(header::ORIGIN) {
        Some(origin) if origin.split_once("://").map(|(_, rest)| rest) != Some(host) => {
            Err(Problem::new(403, "forbidden", "another site's page may not use the control plane"))
        }
        _ => Ok(()),
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = Token::parse("0123456789abcdef").unwrap();
        let code = |shown: &str| check(Some(&token), &headers(&[(header::AUTHORIZATION, shown)])).map_err(|p| p.code);
        assert_eq!(code("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(code("bearer 0123456789abcdef"), Ok(()));
        for wrong in
            ["Bearer 0123456789abcdeg", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer ", "Basic 0123456789abcdef", ""]
        {
            assert_eq!(code(wrong), Err(401), "{wrong}");
        }
        assert!(check(Some(&token), &headers(&[(header::HOST, "127.0.0.1")])).is_err());
    }

    #[test]
    fn a_token_is_long_enough_and_has_no_blanks() {
        for bad in ["", "short", "0123456789 abcdef0", "0123456789abcdé0123"] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn without_a_token_a_browser_can_not_be_talked_into_a_request() {
        let code = |pairs: &[(header::HeaderName, &str)]| check(None, &headers(pairs)).map_err(|p| p.code);
        for host in ["127.0.0.1:7778", "localhost:7778", "localhost", "[::1]:7778", "127.1.2.3"] {
            assert_eq!(code(&[(header::HOST, host)]), Ok(()), "{host}");
        }
        for host in ["example.org:7778", "localhost.example.org", "10.0.0.1", ""] {
            assert_eq!(code(&[(header::HOST, host)]), Err(403), "{host}");
        }
        let host = (header::HOST, "127.0.0.1:7778");
        assert_eq!(code(&[host.clone(), (header::ORIGIN, "http://127.0.0.1:7778")]), Ok(()));
        assert_eq!(code(&[host.clone(), (header::ORIGIN, "http://example.org")]), Err(403));
        assert_eq!(code(&[host, (header::ORIGIN, "null")]), Err(403));
    }
}
