//! What a login costs where it has a token: the check of one by algorithm, and the way through the pool for one that is remembered.
//!
//! One thread checks; a pool's threads scale with the CPUs that shards leave them.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use ringroom::auth::{Checks, KeySet, Pool, Ticket, Verifier};
use ringroom::config::Auth;
use ringroom::ids::{Key, ShardId};
use ringroom::ring::Bells;
use ringroom::sys::clock;
use ringroom::token;

use support::{Group, Mode, mix};

/// Each algorithm with the files that sign and that check.
const KEYS: [(&str, &str, &str); 4] = [
    ("HS256", "hs.secret", "hs.secret"),
    ("EdDSA", "ed.private.pem", "ed.pem"),
    ("ES256", "ec.private.pem", "ec.pem"),
    ("RS256 (2,048 bits)", "rsa.private.pem", "rsa.pem"),
];

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: token::Args,
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn token_of(key: &str, user: &str) -> String {
    let path = file(key);
    let cli = Cli::parse_from(["token", "--key", path.to_str().expect("a path of this repository"), "--user", user]);
    token::make(&cli.args, clock::unix_ms()).expect("a test key signs")
}

fn main() {
    let count = Mode::get().pick(20, 2_000);
    let mut group = Group::new("auth/check", format!("threads=1 tokens={count} of 1 user, without rooms")).same_result();
    for (name, private, public) in KEYS {
        let mut set = KeySet::new(Checks::default());
        set.add("k", &std::fs::read(file(public)).expect("a test key")).expect("a test key");
        let token = token_of(private, "alice");
        group = group.case(name, count, move |clock| {
            let now_ms = clock::unix_ms();
            let good = clock.time(|| (0..count).filter(|_| set.check(&token, now_ms).is_ok()).count());
            mix(0, good as u64)
        });
    }
    group.run();
    through_the_pool(count);
}

/// As a shard sees it: a batch of questions, then their answers, the bell's system call for each among it.
fn through_the_pool(count: u64) {
    let bells = Bells::new(1).expect("an eventfd");
    let mut group = Group::new("auth/pool", format!("threads=1 batch={count}")).same_result();
    for (name, verify_cache) in [("ES256, checked", 0), ("ES256, remembered", 16)] {
        let settings = Auth {
            keys: vec![file("ec.pem").display().to_string()],
            verify_threads: 1,
            verify_ms: 60_000,
            verify_cache,
            ..Auth::default()
        };
        let keys = KeySet::load(&settings).expect("a test key");
        let pool = Pool::start(&settings, keys, Arc::clone(&bells)).expect("a thread");
        let mut shard = pool.handle(ShardId(0));
        let token = token_of("ec.private.pem", "alice");
        group = group.case(name, count, move |clock| mix(0, clock.time(|| good_of(&mut *shard, &token, count))));
    }
    group.run();
}

fn good_of(shard: &mut dyn Verifier, token: &str, count: u64) -> u64 {
    for ask in 0..count {
        let ticket = Ticket { connection: Key { slot: 0, generation: 0 }, ask };
        shard.ask(clock::now(), ticket, token).expect("the queue is longer");
    }
    let (mut good, mut answers) = (0, Vec::new());
    let mut taken = 0;
    while taken < count {
        shard.answers(clock::now(), &mut answers);
        taken += answers.len() as u64;
        good += answers.drain(..).filter(|answer| answer.verdict.is_ok()).count() as u64;
        std::thread::sleep(Duration::from_micros(50));
    }
    good
}
