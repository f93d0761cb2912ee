//! The table fault x stage over all seeds, with the cells that cannot be met and why.

use ringroom::ring::fake::{Fault, Stage, Table};

/// Cells that stay empty, by reason.
const IMPOSSIBLE: &[(Fault, &[Stage], &str)] = &[
    (Fault::AcceptFailed, &ALL_BUT_OUTSIDE, "there is no connection yet"),
    (Fault::BellDelayed, &ALL_BUT_OUTSIDE, "a doorbell belongs to a shard"),
    (Fault::ReceiveSplit, &[Stage::Outside, Stage::Moving], "no receive is in flight"),
    (Fault::NoBuffersAtRandom, &[Stage::Outside, Stage::Moving], "no receive is in flight"),
    (Fault::NoBuffersEmpty, &[Stage::Outside, Stage::Moving], "no receive is in flight"),
    (Fault::ReceiveReset, &[Stage::Outside, Stage::Moving], "no receive is in flight"),
    (Fault::MultishotEnd, &[Stage::Handshake, Stage::Moving], "receives are one-shot before welcome"),
    (Fault::SendShort, &[Stage::Outside, Stage::Handshake, Stage::Moving, Stage::OpenIdle], "no send is in flight"),
    (Fault::SendBroken, &[Stage::Outside, Stage::Handshake, Stage::Moving, Stage::OpenIdle], "no send is in flight"),
    (Fault::WindowFull, &[Stage::Outside, Stage::Handshake, Stage::Moving, Stage::OpenIdle], "no send is in flight"),
    (
        Fault::DataAfterCancel,
        &[Stage::Outside, Stage::Moving, Stage::OpenIdle, Stage::OpenSending],
        "an open connection with a cancel is the stage Cancelling",
    ),
    (Fault::CancelTooLate, &[Stage::Moving, Stage::OpenIdle, Stage::OpenSending], "with a cancel it is the stage Cancelling, or Closing"),
    (Fault::CancelMissed, &ALL_BUT_CLOSING, "what an open connection would lose by it is its pause alone"),
    (Fault::CancelInterrupts, &ALL_BUT_CLOSING, "only the sends of connections that are being closed are cancelled"),
    (Fault::Delayed, &[Stage::Moving], "no operation is in flight"),
];

const ALL_BUT_CLOSING: [Stage; 6] =
    [Stage::Outside, Stage::Handshake, Stage::Moving, Stage::OpenIdle, Stage::OpenSending, Stage::Cancelling];
const ALL_BUT_OUTSIDE: [Stage; 6] =
    [Stage::Handshake, Stage::Moving, Stage::OpenIdle, Stage::OpenSending, Stage::Cancelling, Stage::Closing];

fn reason(fault: Fault, stage: Stage) -> Option<&'static str> {
    IMPOSSIBLE.iter().find(|(f, stages, _)| *f == fault && stages.contains(&stage)).map(|(.., reason)| *reason)
}

/// The table as text, and the cells that should not be empty but are.
pub(crate) fn render(table: &Table) -> (String, Vec<String>) {
    let mut text = format!("{:<18}", "fault");
    for stage in Stage::ALL {
        text.push_str(&format!("{:>12}", format!("{stage:?}")));
    }
    text.push('\n');
    let mut empty = Vec::new();
    for fault in Fault::ALL {
        text.push_str(&format!("{:<18}", format!("{fault:?}")));
        for stage in Stage::ALL {
            let count = table.cells[fault as usize][stage as usize];
            let impossible = reason(fault, stage).is_some();
            if count == 0 && !impossible {
                empty.push(format!("{fault:?} x {stage:?}"));
            }
            let cell = if count == 0 && impossible { "-".to_owned() } else { count.to_string() };
            text.push_str(&format!("{cell:>12}"));
        }
        text.push('\n');
    }
    (text, empty)
}
