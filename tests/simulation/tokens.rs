//! Tokens of the simulated clients: what they say, what they allow, and a verifier that is late, silent or repeats itself.
//!
//! A token is its claims in plain text; "signed" is a word in it. The oracle reads the same claims: what it says of rights is written from
//! protocol.md and shares no code with the rules.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use ringroom::auth::{Answer, Denied, Full, Pass, Ticket, Verifier};
use ringroom::chat::{Grant, Right, Rights, RoomRights, TokenRate};
use ringroom::ids::{Now, UserName};
use ringroom::ring::fake::Random;

use super::plan::VerifierFaults;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charter {
    Everything,
    /// Joins any room, hears who comes and goes, says nothing.
    Reader,
    /// Two rooms, and direct messages.
    Guest,
    /// Joins and sends anywhere, without presence.
    Shy,
}

/// Something that needs a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Join,
    Send,
    Presence,
}

impl Charter {
    pub(crate) const ALL: [Charter; 4] = [Charter::Everything, Charter::Reader, Charter::Guest, Charter::Shy];

    pub(crate) fn allows(self, room: &str, deed: Deed) -> bool {
        let inbox = room.starts_with('@');
        match self {
            Charter::Everything => true,
            Charter::Reader => !inbox && deed != Deed::Send,
            Charter::Guest if inbox => deed == Deed::Send,
            Charter::Guest => matches!(room, "r0" | "r1"),
            Charter::Shy => deed != Deed::Presence,
        }
    }

    fn rights(self) -> Option<Arc<Rights>> {
        let rights = |patterns: &[(&str, &[Right])]| {
            let rooms = patterns.iter().map(|(pattern, rights)| RoomRights::new(pattern, rights.iter().copied()).expect("a pattern"));
            Some(Arc::new(Rights(rooms.collect())))
        };
        match self {
            Charter::Everything => None,
            Charter::Reader => rights(&[("r*", &[Right::Join, Right::Presence])]),
            Charter::Guest => rights(&[("r0", &Right::ALL), ("r1", &Right::ALL), ("@*", &[Right::Send])]),
            Charter::Shy => rights(&[("*", &[Right::Join, Right::Send])]),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) user: String,
    pub(crate) charter: Charter,
    /// Milliseconds since 1970.
    pub(crate) ends_ms: u64,
    pub(crate) signed: bool,
}

impl Token {
    pub(crate) fn text(&self) -> String {
        let place = Charter::ALL.iter().position(|charter| *charter == self.charter).expect("one of them");
        format!("{}/{place}/{}/{}", self.user, self.ends_ms, if self.signed { "signed" } else { "forged" })
    }

    fn parse(text: &str) -> Option<Token> {
        let mut parts = text.split('/');
        let (user, place, ends_ms, seal) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let charter = *Charter::ALL.get(place.parse::<usize>().ok()?)?;
        Some(Token { user: user.to_owned(), charter, ends_ms: ends_ms.parse().ok()?, signed: seal == "signed" })
    }

    fn judge(&self, now: Now) -> Result<Pass, Denied> {
        let user = UserName::parse(&self.user).map_err(|_| Denied::Bad)?;
        if !self.signed {
            return Err(Denied::Bad);
        }
        if now.unix_ms >= self.ends_ms {
            return Err(Denied::Expired);
        }
        // A user's tokens all say the same, so that the size of its bucket stays.
        let rate = self.user.ends_with('3').then_some(TokenRate { requests_per_s: 40, burst: 15 });
        let grant = Grant { expires_at: NonZeroU64::new(self.ends_ms), rights: self.charter.rights(), rate };
        Ok(Pass { user, begin_ms: 0, grant })
    }
}

/// Shared by the harness, which ends the faults.
pub(crate) type SharedVerifierFaults = Arc<Mutex<VerifierFaults>>;

#[derive(Debug)]
pub(crate) struct FakeVerifier {
    random: Random,
    faults: SharedVerifierFaults,
    answers: BTreeMap<(u64, u64), Answer>,
    sequence: u64,
}

impl FakeVerifier {
    pub(crate) fn new(random: Random, faults: SharedVerifierFaults) -> Self {
        Self { random, faults, answers: BTreeMap::new(), sequence: 0 }
    }

    fn plan(&mut self, at_ns: u64, answer: Answer) {
        self.sequence += 1;
        self.answers.insert((at_ns, self.sequence), answer);
    }
}

impl Verifier for FakeVerifier {
    fn ask(&mut self, now: Now, ticket: Ticket, token: &str) -> Result<(), Full> {
        let faults = self.faults.lock().unwrap().clone();
        if self.random.chance(faults.full) {
            return Err(Full);
        }
        if self.random.chance(faults.lost) {
            return Ok(());
        }
        let mut verdict = Token::parse(token).ok_or(Denied::Bad).and_then(|token| token.judge(now));
        if self.random.chance(faults.unchecked) {
            verdict = Err(Denied::Late);
        }
        let usual_ns = self.random.below(3_000_000);
        // Some come after the deadline of their question.
        let late_ns = if self.random.chance(faults.late) { self.random.below(4_000_000_000) } else { 0 };
        let at_ns = now.mono_ns + usual_ns + late_ns;
        let answer = Answer { ticket, verdict };
        if self.random.chance(faults.repeated) {
            let again_ns = at_ns + self.random.below(2_000_000_000);
            self.plan(again_ns, answer.clone());
        }
        self.plan(at_ns, answer);
        Ok(())
    }

    fn answers(&mut self, now: Now, out: &mut Vec<Answer>) {
        while let Some(first) = self.answers.first_entry() {
            if first.key().0 > now.mono_ns {
                return;
            }
            out.push(first.remove());
        }
    }

    fn next_ns(&self) -> Option<u64> {
        self.answers.first_key_value().map(|(key, _)| key.0)
    }
}

/// What a client has shown of tokens on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// In the order shown; the first one's `hello` was the first word.
    pub(crate) tokens: Vec<Token>,
    /// One of them is forged, missing or of somebody else.
    pub(crate) bad: bool,
    /// One of them had ended when it was shown.
    pub(crate) expired: bool,
    /// They allow different things: which of them counts when can't be told from outside.
    pub(crate) mixed: bool,
    pub(crate) welcomes: usize,
    /// The monotonic time at which the first of the good ones ends, milliseconds.
    pub(crate) first_end_ms: u64,
}

impl Shown {
    pub(crate) fn show(&mut self, token: &Token, now: Now) {
        let expired = token.ends_ms <= now.unix_ms;
        self.bad |= !token.signed;
        self.expired |= expired && token.signed;
        self.mixed |= self.tokens.first().is_some_and(|first| first.charter != token.charter);
        let end_ms = now.mono_ms() + token.ends_ms.saturating_sub(now.unix_ms);
        self.first_end_ms = if self.tokens.is_empty() { end_ms } else { self.first_end_ms.min(end_ms) };
        self.tokens.push(token.clone());
    }

    /// Whether the deed is allowed; `None` when that can't be told.
    pub(crate) fn allows(&self, room: &str, deed: Deed) -> Option<bool> {
        match self.tokens.first() {
            None => Some(true),
            Some(_) if self.mixed => None,
            Some(token) => Some(token.charter.allows(room, deed)),
        }
    }

    /// The latest end of those that were shown, milliseconds since 1970.
    pub(crate) fn last_end_ms(&self) -> Option<u64> {
        self.tokens.iter().map(|token| token.ends_ms).max()
    }

    /// A `welcome` has come with this end.
    pub(crate) fn welcomed(&mut self, expires_at: Option<u64>) -> Result<(), String> {
        self.welcomes += 1;
        let good = |token: &&Token| token.signed && Some(token.ends_ms) == expires_at;
        let fits = match (self.tokens.first(), self.welcomes) {
            (None, _) => expires_at.is_none(),
            (Some(first), 1) => good(&first),
            (Some(_), count) => count <= self.tokens.len() && self.tokens[1..].iter().any(|token| good(&token)),
        };
        if fits { Ok(()) } else { Err(format!("a welcome that no token deserves: {self:?}")) }
    }
}
