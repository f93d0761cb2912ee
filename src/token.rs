//! `ringroom token`: makes a token that `ringroom serve` takes, for trying things out and for small sites that have no identity provider.
//!
//! Owns the reading of the flags and of the signing key, and prints one line: the token. The key's file tells the algorithm, as on the server.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

use crate::auth;
use crate::chat::{Right, RoomRights};
use crate::ids::UserName;
use crate::sys::clock;

/// As `ringroom serve` ends for a bad command line, and for a file that can't be read.
const EXIT_USAGE: u8 = 64;
const EXIT_NO_INPUT: u8 = 66;

/// Makes a token for a user and prints it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Keys:
  openssl rand -hex 32 > secret                              HS256: the server has the same file
  openssl genpkey -algorithm ed25519 -out private.pem        EdDSA
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out private.pem
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out private.pem
  openssl pkey -in private.pem -pubout -out public.pem       what the server has: auth.keys = [\"public.pem\"]

Examples:
  ringroom token --key secret --user alice
  ringroom token --key private.pem --user bot --expires 30d --room 'team.*:join,send' --room @alice:send

Without --room the user may do everything in every room; with it, only what is named. Rights: join (history goes with it), send, presence.")]
pub struct Args {
    /// Private key in PEM (PKCS#8: RSA, P-256 or Ed25519), or a secret of at least 32 bytes
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Whose token it is
    #[arg(long, value_name = "NAME", value_parser = user)]
    pub user: String,
    /// How long it is good, like 30s, 15m, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub expires: Duration,
    /// A room, or the beginning of rooms' names and a *, with rights: lobby:join,send; may be given several times
    #[arg(long, value_name = "PATTERN:RIGHTS", value_parser = room)]
    pub room: Vec<Room>,
    /// The user's rate: requests per second and burst, like 100/200
    #[arg(long, value_name = "N/N", value_parser = rate)]
    pub rate: Option<(u32, u32)>,
    /// What the server's auth.issuer says
    #[arg(long, value_name = "TEXT")]
    pub issuer: Option<String>,
    /// What the server's auth.audience says
    #[arg(long, value_name = "TEXT")]
    pub audience: Option<String>,
    /// Name of the key file on the server, without its ending; without it the server tries all its keys
    #[arg(long, value_name = "NAME")]
    pub kid: Option<String>,
}

/// Rights in the rooms of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    pattern: String,
    rights: Vec<&'static str>,
}

pub fn run(args: &Args) -> ExitCode {
    match make(args, clock::unix_ms()) {
        Ok(token) => {
            // A closed pipe has nobody to tell.
            let _ = writeln!(std::io::stdout(), "{token}");
            ExitCode::SUCCESS
        }
        Err((code, why)) => {
            let _ = writeln!(std::io::stderr(), "ringroom: {why}");
            ExitCode::from(code)
        }
    }
}

/// The token, or the exit code and the reason.
pub fn make(args: &Args, now_unix_ms: u64) -> Result<String, (u8, String)> {
    let file = args.key.display();
    let bytes = std::fs::read(&args.key).map_err(|why| (EXIT_NO_INPUT, format!("can't read the key file {file}: {why}")))?;
    let (algorithm, key) = signing_key(&bytes).map_err(|why| (EXIT_USAGE, format!("the key file {file} can't be used: {why}")))?;
    let mut header = Header::new(algorithm);
    header.kid.clone_from(&args.kid);
    encode(&header, &claims(args, now_unix_ms), &key).map_err(|why| (EXIT_USAGE, format!("the key file {file} does not sign: {why}")))
}

fn claims(args: &Args, now_unix_ms: u64) -> Value {
    let now_s = now_unix_ms / 1_000;
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    set("sub", json!(args.user));
    set("iat", json!(now_s));
    set("exp", json!(now_s + args.expires.as_secs()));
    if let Some(issuer) = &args.issuer {
        set("iss", json!(issuer));
    }
    if let Some(audience) = &args.audience {
        set("aud", json!(audience));
    }
    if !args.room.is_empty() {
        let rooms = args.room.iter().map(|room| json!({"room": room.pattern, "rights": room.rights}));
        set("rooms", rooms.collect());
    }
    if let Some((requests_per_s, burst)) = args.rate {
        set("rate", json!({"requests_per_s": requests_per_s, "burst": burst}));
    }
    Value::Object(claims)
}

fn signing_key(bytes: &[u8]) -> Result<(Algorithm, EncodingKey), &'static str> {
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        let secret = auth::secret(bytes);
        return if secret.len() >= auth::SECRET_BYTES_MIN {
            Ok((Algorithm::HS256, EncodingKey::from_secret(secret)))
        } else {
            Err("a secret needs at least 32 bytes (openssl rand -hex 32)")
        };
    }
    if bytes.windows(17).any(|window| window == b"PUBLIC KEY-----\nM") {
        return Err("it holds a public key; a token is signed with the private one");
    }
    if let Ok(key) = EncodingKey::from_ed_pem(bytes) {
        return Ok((Algorithm::EdDSA, key));
    }
    if let Ok(key) = EncodingKey::from_ec_pem(bytes) {
        return Ok((Algorithm::ES256, key));
    }
    let rsa = EncodingKey::from_rsa_pem(bytes);
    rsa.map(|key| (Algorithm::RS256, key))
        .map_err(|_| "no private key of RSA, P-256 or Ed25519 is in it (EC and Ed25519: PKCS#8, openssl pkcs8 -topk8 -nocrypt)")
}

fn user(text: &str) -> Result<String, String> {
    UserName::parse(text).map_err(|_| "must be 1 to 64 of A-Z a-z 0-9 _ . : -".to_owned())?;
    Ok(text.to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with s, m, h or d behind it, like 1h".to_owned();
    let unit_s = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let count: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(count) * unit_s))
}

/// Names may hold a `:`, so the last one divides.
fn room(text: &str) -> Result<Room, String> {
    let (pattern, rights) = text.rsplit_once(':').ok_or("must be a room, a colon and rights, like lobby:join,send")?;
    let known = |name: &str| Right::of(name).map(Right::name).ok_or_else(|| format!("{name:?} is no right: join, send, presence"));
    let rights = rights.split(',').map(known).collect::<Result<Vec<_>, _>>()?;
    RoomRights::new(pattern, []).ok_or("must begin with a room's name, or with the beginning of one and a *")?;
    Ok(Room { pattern: pattern.to_owned(), rights })
}

fn rate(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once('/').and_then(|(rate, burst)| Some((rate.parse().ok()?, burst.parse().ok()?)));
    let good = |n: &u32| (1..=1_000_000).contains(n);
    numbers
        .filter(|(rate, burst)| good(rate) && good(burst))
        .ok_or_else(|| "must be two numbers from 1 to 1000000, like 100/200".to_owned())
}
