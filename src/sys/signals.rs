//! Signals become values on a channel; nothing else of the process handles them.
//!
//! Owns one thread, which sleeps in the kernel until a signal comes. SIGTERM and SIGINT ask for a drain, a second one for an end at once; SIGHUP asks
//! for a reload and never ends the process: it is forgotten where nobody takes the news; SIGPIPE is ignored, so that a write to a closed pipe is an error and not a death.
//! Never blocks on the channel: where nobody takes the news (full, or the receiver is gone), a request to stop ends the process here.
//! Install before other threads start, so that no signal meets the default action in between.
#![allow(unsafe_code, reason = "ignoring a signal has no safe face in std")]

use std::io;
use std::thread;

use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

/// What somebody outside wants of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop accepting, finish, say goodbye, exit 0.
    Drain,
    /// Stop now.
    Stop,
    /// Read again what can be read again.
    Reload,
}

/// What a shell reports for a process that a signal ended.
const EXIT_OF_SIGNAL: i32 = 128;

/// Takes over the signals, for the life of the process.
pub fn install(news: Sender<Signal>) -> io::Result<()> {
    ignore_pipe()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(move || {
        let mut asked = 0;
        for signal in signals.forever() {
            if signal == SIGHUP {
                // Places for a drain and a stop stay free, however often this one comes.
                if news.capacity().is_none_or(|places| news.len() + 2 < places) {
                    let _ = news.try_send(Signal::Reload);
                }
                continue;
            }
            asked += 1;
            let wanted = wanted(asked);
            let taken = wanted.is_some_and(|wanted| news.try_send(wanted).is_ok());
            if !taken {
                std::process::exit(EXIT_OF_SIGNAL + signal);
            }
        }
    })?;
    Ok(())
}

/// What the n-th request means; `None`: whoever should stop the process did not, so it ends here.
fn wanted(asked: u32) -> Option<Signal> {
    match asked {
        1 => Some(Signal::Drain),
        2 => Some(Signal::Stop),
        _ => None,
    }
}

fn ignore_pipe() -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours; the call touches no memory of this process.
    let before = unsafe { libc::signal(SIGPIPE, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;
    use std::time::Duration;

    /// One test, because signals belong to the whole process.
    #[test]
    fn a_first_request_drains_a_second_stops_and_hangups_never_crowd_them_out() {
        let (sender, receiver) = crossbeam_channel::bounded(4);
        install(sender).unwrap();
        let patience = Duration::from_secs(10);
        raise(SIGHUP).unwrap();
        assert_eq!(receiver.recv_timeout(patience), Ok(Signal::Reload));
        for _ in 0..100 {
            raise(SIGHUP).unwrap();
        }
        raise(SIGPIPE).unwrap();
        raise(SIGTERM).unwrap();
        let asked = || std::iter::from_fn(|| receiver.recv_timeout(patience).ok()).find(|signal| *signal != Signal::Reload);
        assert_eq!(asked(), Some(Signal::Drain));
        raise(SIGINT).unwrap();
        assert_eq!(asked(), Some(Signal::Stop));
        assert!(receiver.try_iter().all(|signal| signal == Signal::Reload));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
        assert_ne!(u64::from_str_radix(ignored, 16).unwrap() & (1 << (SIGPIPE - 1)), 0);
    }

    #[test]
    fn a_third_request_does_not_depend_on_anybody() {
        assert_eq!([1, 2, 3, 4].map(wanted), [Some(Signal::Drain), Some(Signal::Stop), None, None]);
    }
}
