//! Frames cut out of what a connection reads; only an incomplete one is kept.

use ringroom::limits::FRAME_BYTES_MAX;
use ringroom::protocol::frame::{Cut, cut};

/// The connection is of no more use: closed, failed, too far behind, or not one that speaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

/// An incomplete frame: at most one of the greatest length.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on_frame: impl FnMut(&[u8]) -> Result<(), Over>) -> Result<(), Over> {
        if self.0.is_empty() {
            let rest = frames(bytes, &mut on_frame)?;
            self.0.extend_from_slice(rest);
            return Ok(());
        }
        self.0.extend_from_slice(bytes);
        let kept = frames(&self.0, &mut on_frame)?.len();
        self.0.drain(..self.0.len() - kept);
        if kept == 0 {
            // A connection that is idle keeps nothing.
            self.0 = Vec::new();
        }
        Ok(())
    }
}

/// Hands over all whole frames; the answer is what stands behind them.
fn frames<'a>(bytes: &'a [u8], on_frame: &mut impl FnMut(&[u8]) -> Result<(), Over>) -> Result<&'a [u8], Over> {
    let mut rest = bytes;
    loop {
        match cut(rest, FRAME_BYTES_MAX) {
            Cut::Frame { json, rest: behind } => {
                on_frame(json)?;
                rest = behind;
            }
            Cut::Incomplete { .. } => return Ok(rest),
            Cut::Bad(_) => return Err(Over),
        }
    }
}
