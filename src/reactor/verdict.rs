//! Logins with a token: a `hello` waits here until the verifier has looked at it, nothing behind it is judged before, nothing more is read.
//!
//! The connection's `waits` is `Verdict` exactly while `Core::asked` has its question. A connection that ends takes its question back; an answer
//! without a question is stale, and counted. A first `hello` that gets no verdict in time ends with 503; a session that wanted to renew its token is
//! told 503 and stays until its old one ends. Addresses that fail too often are turned away unchecked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::{Phase, Waits};
use super::core::Core;
use super::effects::Ending;
use crate::auth::{Answer, Denied, Failures, Pass, Ticket, Verifier};
use crate::chat::{Attachments, Login};
use crate::config::Deadline;
use crate::ids::Key;
use crate::protocol::error::{Reason, Refusal};
use crate::protocol::message::Hello;

/// A client whose token nobody had time for may come back after this, and up to this much later.
const RETRY_MS: u64 = 1_000;
const RETRY_SPREAD_MS: u64 = 2_000;

/// What a shard needs where logins have tokens.
#[derive(Debug)]
pub struct TokenLogin {
    pub verifier: Box<dyn Verifier>,
    /// Of the whole process: an address's connections meet all shards. Locked when a login fails, and for every login while some address is out of tokens.
    pub failures: Arc<Mutex<Failures>>,
}

/// A question without an answer.
#[derive(Debug)]
pub(super) struct Asked {
    ask: u64,
    /// Of the first `hello`; a session that renews its token has said this long ago.
    attachments: Option<Attachments>,
}

impl<S> Core<S> {
    /// A stranger's `hello`, with a token or without.
    pub(super) fn first_token(&mut self, key: Key, hello: &Hello<'_>) {
        let token = match Login::token(hello) {
            Ok(token) => token,
            Err((reason, message)) => return self.end_and_settle(key, Ending::said(reason, Some(message))),
        };
        if let Err(wait_ms) = self.may_try(key) {
            self.counters.logins_limited.add(1);
            let message = Some("too many failed logins from this address");
            let ending = Ending { retry_after_ms: Some(wait_ms), ..Ending::said(Reason::RateLimited, message) };
            return self.end_and_settle(key, ending);
        }
        if !self.ask(key, token, Some(Attachments::of(hello))) {
            self.unchecked(key);
        }
    }

    /// A session's second `hello`, which the rules have found worth checking.
    pub(super) fn fresh_token(&mut self, key: Key, hello: &Hello<'_>) {
        let token = hello.token.as_deref().unwrap_or_default();
        if !self.ask(key, token, None) {
            self.unchecked(key);
        }
    }

    /// `false` when too many wait.
    fn ask(&mut self, key: Key, token: &str, attachments: Option<Attachments>) -> bool {
        let now = self.now;
        let Some(login) = &mut self.login else { return false };
        self.asks += 1;
        let ask = self.asks;
        if login.verifier.ask(now, Ticket { connection: key, ask }, token).is_err() {
            return false;
        }
        self.asked.insert(key, Asked { ask, attachments });
        self.wait_for(key, Waits::Verdict);
        self.check_no_later(key, self.due_ms(Deadline::Verdict));
        true
    }

    /// Takes the verdicts that have come.
    pub(super) fn take_verdicts(&mut self) {
        let Some(login) = &mut self.login else { return };
        let mut answers = std::mem::take(&mut self.verdicts);
        login.verifier.answers(self.now, &mut answers);
        for answer in answers.drain(..) {
            self.verdict(answer);
        }
        self.verdicts = answers;
    }

    fn verdict(&mut self, answer: Answer) {
        let key = answer.ticket.connection;
        if self.asked.get(&key).is_none_or(|asked| asked.ask != answer.ticket.ask) {
            self.counters.verdicts_stale.add(1);
            return;
        }
        let asked = self.asked.remove(&key).expect("looked up above");
        let connection = self.connections.get_mut(key).expect("a connection takes its question with it");
        connection.waits = Waits::No;
        connection.waiting_ms = 0;
        match (answer.verdict, asked.attachments) {
            (Err(Denied::Late), _) => {
                self.unchecked(key);
                self.go_on(key);
            }
            (Err(Denied::Bad), _) => self.login_failed(key, Reason::BadToken, "the token is not good here"),
            (Err(Denied::Expired), _) => self.login_failed(key, Reason::TokenExpired, "the token has expired"),
            (Ok(pass), Some(attachments)) => self.let_in(key, pass, attachments),
            (Ok(pass), None) => self.renewed(key, pass),
        }
    }

    fn let_in(&mut self, key: Key, pass: Pass, attachments: Attachments) {
        let Attachments { device, inbox } = attachments;
        let login = Login { user: pass.user, device, inbox, grant: pass.grant };
        let home = self.chat.home_of_user(login.user.as_str());
        if home == self.shard {
            self.log_in(key, login);
            self.parse_unread(key);
            return;
        }
        let connection = self.connections.get_mut(key).expect("found by the caller");
        let unread = connection.unread.take().map_or_else(Vec::new, |unread| unread.bytes);
        self.unread_shrinks(key, unread.len());
        self.move_out(key, home, login, unread);
    }

    fn renewed(&mut self, key: Key, pass: Pass) {
        let end_ms = self.end_of(&pass.grant);
        let renewed = self.chat.handle_renewal(self.now, key, (pass.user, pass.grant), &mut self.effects);
        self.settle();
        if let Some(connection) = self.connections.get_mut(key).filter(|c| renewed && c.phase == Phase::Open) {
            connection.deadline_ms = end_ms;
            self.check_no_later(key, end_ms);
        }
        self.go_on(key);
    }

    /// Nobody has looked at the token, or not in time. A session is not read from again before [`Core::go_on`].
    pub(super) fn unchecked(&mut self, key: Key) {
        self.counters.verdicts_missed.add(1);
        self.asked.remove(&key);
        let retry_after_ms = Some(RETRY_MS + (u64::from(key.slot).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % RETRY_SPREAD_MS);
        let message = "no time to check the token";
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase != Phase::Open {
            let ending = Ending { retry_after_ms, ..Ending::said(Reason::Overloaded, Some(message)) };
            return self.end_and_settle(key, ending);
        }
        // Sessions that are in stay in, as long as their old token lasts.
        connection.waits = Waits::No;
        connection.waiting_ms = 0;
        self.chat.handle_overload(key, &Refusal { id: None, reason: Reason::Overloaded, message }, &mut self.effects);
        self.settle();
    }

    fn login_failed(&mut self, key: Key, reason: Reason, message: &'static str) {
        self.counters.logins_failed.add(1);
        let (now_ms, address) = (self.now_ms(), self.address(key));
        if let (Some(mut failures), Some(address)) = (self.failures(), address) {
            failures.failed(now_ms, address);
        }
        self.end_and_settle(key, Ending::said(reason, Some(message)));
    }

    /// The error is the milliseconds to wait.
    fn may_try(&self, key: Key) -> Result<(), u64> {
        let now_ms = self.now_ms();
        let Some(mut failures) = self.failures() else { return Ok(()) };
        if failures.is_calm(now_ms) {
            return Ok(());
        }
        self.address(key).map_or(Ok(()), |address| failures.look(now_ms, address))
    }

    fn failures(&self) -> Option<MutexGuard<'_, Failures>> {
        self.login.as_ref().map(|login| login.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
