//! What stands in a token, once its signature is good: read into a [`Pass`], or refused whole.
//!
//! A claim of ours with a value we do not understand is an error and not a claim less: a mistyped right must not become no limit.

use std::num::NonZeroU64;
use std::sync::Arc;

use serde::Deserialize;

use super::Denied;
use super::keys::Pass;
use crate::chat::{Grant, Right, Rights, RoomRights, TokenRate};
use crate::ids::UserName;

/// The claims we look at; `iss` and `aud` are the library's to check.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    rooms: Option<Vec<RoomClaim>>,
    rate: Option<RateClaim>,
}

#[derive(Debug, Deserialize)]
struct RoomClaim {
    room: String,
    rights: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct RateClaim {
    requests_per_s: u32,
    burst: u32,
}

/// The last second of the year 9999; what is later is no time.
const SECONDS_MAX: f64 = 253_402_300_799.0;
/// The most that the configuration allows either.
const RATE_MAX: u32 = 1_000_000;

impl Claims {
    pub(super) fn pass(self, leeway_s: u64) -> Result<Pass, Denied> {
        let user = UserName::parse(&self.sub).map_err(|_| Denied::Bad)?;
        let leeway_ms = leeway_s * 1_000;
        let end_ms = milliseconds(self.exp)?.saturating_add(leeway_ms);
        let begin_ms = self.nbf.map(milliseconds).transpose()?.map_or(0, |ms| ms.saturating_sub(leeway_ms));
        let rights = self.rooms.map(rights).transpose()?.map(Arc::new);
        let rate = self.rate.map(rate).transpose()?;
        let expires_at = NonZeroU64::new(end_ms).ok_or(Denied::Expired)?;
        Ok(Pass { user, begin_ms, grant: Grant { expires_at: Some(expires_at), rights, rate } })
    }
}

/// RFC 7519, section 2, NumericDate: seconds since 1970, with or without a fraction.
fn milliseconds(seconds: f64) -> Result<u64, Denied> {
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(Denied::Bad);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^48, as checked above")]
    let ms = (seconds * 1_000.0) as u64;
    Ok(ms)
}

fn rights(claim: Vec<RoomClaim>) -> Result<Rights, Denied> {
    let one = |claim: RoomClaim| {
        let rights: Option<Vec<Right>> = claim.rights.iter().map(|name| Right::of(name)).collect();
        RoomRights::new(&claim.room, rights?)
    };
    let all: Option<Box<[RoomRights]>> = claim.into_iter().map(one).collect();
    all.map(Rights).ok_or(Denied::Bad)
}

fn rate(claim: RateClaim) -> Result<TokenRate, Denied> {
    let RateClaim { requests_per_s, burst } = claim;
    let good = (1..=RATE_MAX).contains(&requests_per_s) && (1..=RATE_MAX).contains(&burst);
    if good { Ok(TokenRate { requests_per_s, burst }) } else { Err(Denied::Bad) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn pass(json: &str) -> Result<Pass, Denied> {
        serde_json::from_str::<Claims>(json).map_err(|_| Denied::Bad)?.pass(5)
    }

    #[test]
    fn times_are_seconds_with_or_without_a_fraction_and_the_leeway_widens_both_ends() {
        let found = pass(r#"{"sub":"alice","exp":1700000000.25,"nbf":1600000000}"#).unwrap();
        assert_eq!((found.user.as_str(), found.begin_ms), ("alice", 1_599_999_995_000));
        assert_eq!(found.grant.expires_at.unwrap().get(), 1_700_000_005_250);
        assert_eq!((found.grant.rights, found.grant.rate), (None, None));
    }

    #[test]
    fn a_claim_that_is_not_understood_is_refused() {
        let rest = |rest: &str| pass(&format!(r#"{{"sub":"a","exp":1700000000{rest}}}"#));
        assert!(rest(r#","other":{"x":1},"rooms":[],"iat":"soon""#).is_ok());
        for bad in [
            r#","rooms":[{"room":"a","rights":["write"]}]"#,
            r#","rooms":[{"room":"a*b","rights":["join"]}]"#,
            r#","rooms":[{"room":"a"}]"#,
            r#","rooms":"a""#,
            r#","rooms":[],"rooms":[]"#,
            r#","rate":{"requests_per_s":0,"burst":1}"#,
            r#","rate":{"requests_per_s":1,"burst":1000001}"#,
            r#","rate":{"requests_per_s":1}"#,
            r#","sub":"b""#,
            r#","nbf":-1"#,
            r#","nbf":"1""#,
        ] {
            assert_eq!(rest(bad), Err(Denied::Bad), "{bad}");
        }
        for bad in [
            r#"{"exp":1}"#,
            r#"{"sub":"a"}"#,
            r#"{"sub":"@a","exp":1}"#,
            r#"{"sub":"","exp":1}"#,
            r#"{"sub":7,"exp":1}"#,
            r#"{"sub":"a","exp":null}"#,
            r#"{"sub":"a","exp":1e300}"#,
            r#"{"sub":"a","exp":253402300801}"#,
        ] {
            assert_eq!(pass(bad), Err(Denied::Bad), "{bad}");
        }
    }

    #[test]
    fn rights_and_rate_are_read() {
        let found =
            pass(r#"{"sub":"a","exp":1,"rooms":[{"room":"team.*","rights":["join","send"]}],"rate":{"requests_per_s":7,"burst":9}}"#);
        let grant = found.unwrap().grant;
        assert_eq!(grant.rate, Some(TokenRate { requests_per_s: 7, burst: 9 }));
        let rights = grant.rights.unwrap();
        assert!(rights.allows("team.a", Right::Send) && !rights.allows("team.a", Right::Presence));
    }
}
