//! The one table of deadlines: every state that waits, what its time is called, what comes of it when the time is over.
//!
//! Whoever waits asks [`Deadline::ms`] for how long and nobody else; [`Deadline::row`] is what the page of an operator shows and what a test walks
//! through, which sees each of them pass. A state without a row has no business waiting.

use super::Settings;
use crate::limits;

/// A state that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deadline {
    ProxyHeader,
    Handshake,
    Verdict,
    Renewal,
    Move,
    Frame,
    Ping,
    Idle,
    Progress,
    Blocked,
    Join,
    Held,
    Log,
    Absence,
    Answering,
    Drain,
    Flush,
    Linger,
    Cut,
    Accept,
    Release,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who waits for what.
    pub state: &'static str,
    /// The key of the configuration, or the constant of `limits`, that says how long.
    pub key: &'static str,
    /// What comes of it: an object with its code and reason, an exit code, or what the server does.
    pub then: &'static str,
}

const fn row(state: &'static str, key: &'static str, then: &'static str) -> Row {
    Row { state, key, then }
}

impl Deadline {
    pub const ALL: [Deadline; Deadline::Release as usize + 1] = [
        Deadline::ProxyHeader,
        Deadline::Handshake,
        Deadline::Verdict,
        Deadline::Renewal,
        Deadline::Move,
        Deadline::Frame,
        Deadline::Ping,
        Deadline::Idle,
        Deadline::Progress,
        Deadline::Blocked,
        Deadline::Join,
        Deadline::Held,
        Deadline::Log,
        Deadline::Absence,
        Deadline::Answering,
        Deadline::Drain,
        Deadline::Flush,
        Deadline::Linger,
        Deadline::Cut,
        Deadline::Accept,
        Deadline::Release,
    ];

    /// How long the state may last, milliseconds.
    pub fn ms(self, settings: &Settings) -> u64 {
        let of = &settings.limits;
        match self {
            Deadline::ProxyHeader | Deadline::Handshake | Deadline::Move => of.handshake_ms,
            Deadline::Verdict | Deadline::Renewal => settings.auth.verify_ms,
            Deadline::Frame => of.frame_ms,
            Deadline::Ping => of.heartbeat_ms,
            Deadline::Idle => 2 * of.heartbeat_ms,
            Deadline::Progress => settings.queues.no_progress_ms,
            Deadline::Blocked | Deadline::Held | Deadline::Log => of.log_ms,
            Deadline::Join => of.join_ms,
            Deadline::Absence => of.absence_ms,
            Deadline::Answering => limits::ANSWERING_MS,
            Deadline::Drain => of.drain_ms,
            Deadline::Flush => limits::CLOSE_FLUSH_MS,
            Deadline::Linger => limits::LINGER_MS,
            Deadline::Cut => limits::CUT_AGAIN_MS,
            Deadline::Accept => limits::ACCEPT_BACKOFF_MS_MAX,
            Deadline::Release => limits::TAKEOVER_MS,
        }
    }

    pub fn row(self) -> Row {
        match self {
            Deadline::ProxyHeader => row("a listed proxy's header is not whole", "limits.handshake_ms", "bye 408 handshake_timeout"),
            Deadline::Handshake => row("no whole hello has come", "limits.handshake_ms", "bye 408 handshake_timeout"),
            Deadline::Verdict => row("the token of a hello is being checked", "auth.verify_ms", "bye 503 overloaded"),
            Deadline::Renewal => row("the fresh token of a session is being checked", "auth.verify_ms", "error 503 overloaded"),
            Deadline::Move => row("a socket is on its way to its user's shard", "limits.handshake_ms", "bye 503 overloaded"),
            Deadline::Frame => row("a frame's first byte has come and not its last", "limits.frame_ms", "bye 408 frame_timeout"),
            Deadline::Ping => row("a session is silent", "limits.heartbeat_ms", "ping"),
            Deadline::Idle => row("a session is silent, and was pinged", "limits.heartbeat_ms twice", "bye 408 idle"),
            Deadline::Progress => row("a session takes nothing of what waits for it", "queues.no_progress_ms", "bye 429 slow_consumer"),
            Deadline::Blocked => row("a request waits for the way to another shard", "limits.log_ms", "error 503 overloaded"),
            Deadline::Join => row("a join waits for the way to its room's shard", "limits.join_ms", "error 503 overloaded"),
            Deadline::Held => row("a send waits for room in a queue to its readers", "limits.log_ms", "error 503 overloaded"),
            Deadline::Log => row("a send waits for its place in the log", "limits.log_ms", "error 503 log_unavailable"),
            Deadline::Absence => row("a user's last connection broke, its rooms wait for it", "limits.absence_ms", "member leave"),
            Deadline::Answering => row("draining: what was read is being answered", "limits::ANSWERING_MS", "bye 503 draining"),
            Deadline::Drain => row("draining: clients are being told and closed", "limits.drain_ms", "exit 75"),
            Deadline::Flush => row("a connection has ended, its queue and its bye go out", "limits::CLOSE_FLUSH_MS", "closed"),
            Deadline::Linger => row("all is sent, the client's close is waited for", "limits::LINGER_MS", "closed"),
            Deadline::Cut => row("a connection was cut, its operations have not ended", "limits::CUT_AGAIN_MS", "cut again"),
            Deadline::Accept => row("accept(2) has failed", "limits::ACCEPT_BACKOFF_MS_MAX", "tried again"),
            Deadline::Release => row("a new server waits for the old one to leave the port", "limits::TAKEOVER_MS", "a line in the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_state_once_and_in_order() {
        for (index, deadline) in Deadline::ALL.iter().enumerate() {
            assert_eq!(*deadline as usize, index);
        }
    }

    #[test]
    fn a_row_names_the_key_that_changes_it() {
        for deadline in Deadline::ALL {
            let Row { key, .. } = deadline.row();
            let mut settings = Settings::default();
            let before = deadline.ms(&settings);
            let key = key.trim_end_matches(" twice");
            let Some(spec) = super::super::keys::KEYS.iter().find(|spec| spec.path() == key) else {
                assert!(key.starts_with("limits::"), "{key} is no key");
                continue;
            };
            if let super::super::slot::Slot::Number(number, _) = (spec.slot)(&mut settings) {
                assert!(number.set(number.get() + 1));
            }
            assert!(deadline.ms(&settings) > before, "{deadline:?} does not follow {key}");
        }
    }
}
