//! What this kernel's io_uring can do, found by trying: set-up flags strongest first, the opcode probe, feature bits, and one multishot receive over a
//! socket pair. Never by the version string, which backports and containers make a liar.
//!
//! The line of support is Linux 6.1: deferred task work and multishot receive with a buffer ring. Below it, and where io_uring is switched off,
//! [`ProbeError`] says in one line why and what to do. Leaves nothing behind: its ring is closed before it returns.
#![allow(unsafe_code, reason = "submitting to a ring of our own")]

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode};

use super::Errno;
use super::buffers::BufferRing;
use super::op::{self, Answer};
use crate::ids::Key;

/// What the kernel has beyond the line of support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Set-up without the indirection array (6.6).
    pub no_sqarray: bool,
    /// Ring-to-ring messages that are fast with deferred task work (6.11).
    pub message_ring: bool,
    /// A wait that does not count as disk wait (6.15).
    pub no_iowait: bool,
}

impl Features {
    /// What every supported kernel has: the form to test fallbacks with.
    pub const LEAST: Self = Self { no_sqarray: false, message_ring: false, no_iowait: false };
}

/// `io_uring: defer_taskrun multishot buffer_ring no_sqarray doorbell=msg_ring no_iowait`.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("io_uring: defer_taskrun multishot buffer_ring")?;
        if self.no_sqarray {
            f.write_str(" no_sqarray")?;
        }
        f.write_str(if self.message_ring { " doorbell=msg_ring" } else { " doorbell=eventfd" })?;
        if self.no_iowait {
            f.write_str(" no_iowait")?;
        }
        Ok(())
    }
}

/// Why io_uring can't be used here, and what the operator can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// The kernel was built without io_uring, or a filter pretends so.
    Missing,
    /// kernel.io_uring_disabled forbids it.
    Disabled { value: u8 },
    /// Refused though the sysctl allows it: a seccomp filter or a security module.
    Filtered(Errno),
    /// Over the limit of locked memory, or out of memory.
    Memory,
    /// Over the limit of open files.
    Files(Errno),
    /// The kernel lacks what this names.
    TooOld { missing: &'static str },
    /// The probe itself went wrong in a way that no rule explains.
    Failed { step: &'static str, errno: Errno },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("this kernel has no io_uring (ENOSYS): use Linux 6.1 or newer, built with CONFIG_IO_URING"),
            Self::Disabled { value } => {
                let meaning = match value {
                    1 => "only for root and the group in kernel.io_uring_group",
                    _ => "for everybody",
                };
                write!(f, "io_uring is switched off, kernel.io_uring_disabled is {value} ({meaning}): set it to 0 with sysctl -w kernel.io_uring_disabled=0")
            }
            Self::Filtered(errno) => write!(
                f,
                "io_uring is refused (errno {}), most likely by a container's seccomp profile: allow io_uring_setup, io_uring_enter and io_uring_register there",
                errno.0
            ),
            Self::Memory => f.write_str("no memory for io_uring (ENOMEM): raise the limit of locked memory (ulimit -l, LimitMEMLOCK=) or the memory limit of the container"),
            Self::Files(errno) => write!(f, "no descriptor left for io_uring (errno {}): raise the limit of open files (ulimit -n, LimitNOFILE=)", errno.0),
            Self::TooOld { missing } => write!(f, "the kernel's io_uring is too old, it has no {missing}: use Linux 6.1 or newer"),
            Self::Failed { step, errno } => {
                write!(f, "io_uring does not work here: {step} failed with {}: use Linux 6.1 or newer", io::Error::from_raw_os_error(errno.0))
            }
        }
    }
}

impl std::error::Error for ProbeError {}

/// Tries what the ring needs and what it would like.
pub fn probe() -> Result<Features, ProbeError> {
    let (mut ring, no_sqarray) = strongest()?;
    let parameters = ring.params();
    if !(parameters.is_feature_nodrop() && parameters.is_feature_ext_arg() && parameters.is_feature_submit_stable()) {
        return Err(ProbeError::TooOld { missing: "loss-free completion queue with timed waits (5.11)" });
    }
    if !parameters.is_feature_skip_cqe_on_success() {
        return Err(ProbeError::TooOld { missing: "completion skipping (5.17)" });
    }
    let no_iowait = parameters.is_feature_no_iowait();
    let mut operations = Probe::new();
    ring.submitter().register_probe(&mut operations).map_err(|_| ProbeError::TooOld { missing: "opcode probe (5.6)" })?;
    for (code, missing) in [
        (opcode::RecvMulti::CODE, "receive"),
        (opcode::Send::CODE, "send"),
        (opcode::AcceptMulti::CODE, "accept"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel2::CODE, "cancel"),
        (opcode::TimeoutUpdate::CODE, "timeout"),
    ] {
        if !operations.is_supported(code) {
            return Err(ProbeError::TooOld { missing });
        }
    }
    // Bind and listen came with 6.11, as did messages to a deferring ring that do not wake its thread twice; the messages have no mark of their own.
    let message_ring = operations.is_supported(opcode::MsgRingData::CODE)
        && operations.is_supported(opcode::Bind::CODE)
        && operations.is_supported(opcode::Listen::CODE);
    receive_twice(&mut ring)?;
    Ok(Features { no_sqarray, message_ring, no_iowait })
}

/// A ring with the flags that every supported kernel has, and `features`' own.
pub(super) fn build(features: Features, entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all().setup_clamp();
    builder.setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY));
    if features.no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(entries)
}

/// A multishot operation completes many times per entry; what finds no room is kept by the kernel on a slow list.
const COMPLETIONS_PER_ENTRY: u32 = 8;

fn strongest() -> Result<(IoUring, bool), ProbeError> {
    for no_sqarray in [true, false] {
        match build(Features { no_sqarray, ..Features::LEAST }, 8) {
            Ok(ring) => return Ok((ring, no_sqarray)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(refused(Errno::of(&error))),
        }
    }
    Err(ProbeError::TooOld { missing: "deferred task work (6.1)" })
}

fn refused(errno: Errno) -> ProbeError {
    let switch = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    explain(errno, switch.and_then(|text| text.trim().parse().ok()))
}

fn explain(errno: Errno, switch: Option<u8>) -> ProbeError {
    match (errno.0, switch) {
        (libc::ENOSYS, _) => ProbeError::Missing,
        (libc::EPERM, Some(value @ 1..)) => ProbeError::Disabled { value },
        (libc::EPERM | libc::EACCES, _) => ProbeError::Filtered(errno),
        (libc::ENOMEM, _) => ProbeError::Memory,
        (libc::EMFILE | libc::ENFILE, _) => ProbeError::Files(errno),
        _ => ProbeError::Failed { step: "io_uring_setup", errno },
    }
}

/// One multishot receive has to deliver two pieces in two buffers and to stay armed in between.
fn receive_twice(ring: &mut IoUring) -> Result<(), ProbeError> {
    let failed = |step| move |error: io::Error| ProbeError::Failed { step, errno: Errno::of(&error) };
    let mut buffers = BufferRing::new(2).map_err(|_| ProbeError::Memory)?;
    buffers.register(&ring.submitter()).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => ProbeError::TooOld { missing: "ring of provided buffers (5.19)" },
        Some(libc::ENOMEM) => ProbeError::Memory,
        _ => failed("registering a buffer ring")(error),
    })?;
    let (ours, mut theirs) = UnixStream::pair().map_err(|error| refused(Errno::of(&error)))?;
    let entry = op::receive_multishot(Key { slot: 1, generation: 1 }, ours.as_raw_fd());
    // SAFETY: the entry names the buffer group, whose memory is leaked below unless the receive has ended, and `ours`, alive to the end.
    unsafe { ring.submission().push(&entry) }.expect("a new queue of 8 has room");

    let outcome = ["one", "two"].into_iter().try_for_each(|piece| {
        theirs.write_all(piece.as_bytes()).map_err(failed("writing to a socket pair"))?;
        let answer = next(ring)?;
        let delivered = answer.buffer.filter(|_| answer.more && answer.result == 3);
        let id = delivered.ok_or(ProbeError::TooOld { missing: "multishot receive (6.0)" })?;
        let buffer = buffers.take(id, 3);
        if buffers.bytes(&buffer) == piece.as_bytes() { Ok(()) } else { Err(ProbeError::TooOld { missing: "intact multishot receive" }) }
    });
    drop(theirs);
    // The end of the stream ends the receive; only then may its buffers go.
    let ended = outcome.is_ok() && next(ring).is_ok_and(|answer| !answer.more);
    if !ended || ring.submitter().unregister_buf_ring(op::BUFFER_GROUP).is_err() {
        std::mem::forget(buffers);
    }
    outcome
}

fn next(ring: &mut IoUring) -> Result<Answer, ProbeError> {
    let patience = Timespec::new().sec(1);
    let args = SubmitArgs::new().timespec(&patience);
    match ring.submitter().submit_with_args(1, &args) {
        Err(error) if error.raw_os_error() != Some(libc::EINTR) => {
            return Err(ProbeError::Failed { step: "io_uring_enter", errno: Errno::of(&error) });
        }
        _ => {}
    }
    let entry = ring.completion().next();
    entry.map(|entry| Answer::of(&entry)).ok_or(ProbeError::Failed { step: "a receive within one second", errno: Errno(libc::ETIME) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_cause_and_the_fix() {
        let cases = [
            (libc::ENOSYS, None, "CONFIG_IO_URING"),
            (libc::EPERM, Some(2), "kernel.io_uring_disabled is 2 (for everybody)"),
            (libc::EPERM, Some(1), "kernel.io_uring_disabled is 1 (only for root"),
            (libc::EPERM, Some(0), "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::EACCES, Some(0), "seccomp"),
            (libc::ENOMEM, Some(0), "ulimit -l"),
            (libc::EMFILE, Some(0), "ulimit -n"),
            (libc::EIO, Some(0), "io_uring_setup failed"),
        ];
        for (errno, switch, text) in cases {
            let line = explain(Errno(errno), switch).to_string();
            assert!(line.contains(text) && line.lines().count() == 1, "{line}");
        }
    }

    #[test]
    fn features_print_as_one_short_list() {
        let all = Features { no_sqarray: true, message_ring: true, no_iowait: true };
        assert_eq!(all.to_string(), "io_uring: defer_taskrun multishot buffer_ring no_sqarray doorbell=msg_ring no_iowait");
        assert_eq!(Features::LEAST.to_string(), "io_uring: defer_taskrun multishot buffer_ring doorbell=eventfd");
    }
}
