//! Runs a reactor inside a glommio executor: one immortal task, which owns the ring and the blocking wait.
//!
//! Busy or briefly idle, the task waits in our own ring: one system call ends the wait, whatever it was for. After
//! [`PARK_AFTER_NS`] without work it parks inside glommio instead, woken by an eventfd that the ring signals.

use super::{Next, Parts, Reactor, Report};
use crate::ring::park::ParkFile;
use crate::ring::{Ring, RingSetup};

/// Idle for this long, a shard parks in glommio: twice the price of a wake-up, but glommio sees to its own.
const PARK_AFTER_NS: u64 = 2_000_000_000;

/// Everything a shard's task needs, made before its thread.
#[derive(Debug)]
pub struct Seat {
    pub parts: Parts<<Ring as crate::ring::Io>::Socket>,
    pub ring: RingSetup,
}

/// Runs the shard until it is told to stop. To be called on the executor's thread; an error is the shard's end.
pub async fn drive(seat: Seat) -> Result<(), String> {
    let (shard, report) = (seat.parts.rules.shard, seat.parts.report.clone());
    let ring = Ring::new(seat.ring).map_err(|error| error.to_string())?;
    let park = ParkFile::new(&ring).map_err(|error| format!("the eventfd to park on: {error}"))?;
    let mut reactor = Reactor::new(seat.parts, ring);
    // Only a supervisor that has given up does not listen, and it will end the process.
    let _ = report.try_send(Report::Up(shard));
    loop {
        match reactor.turn() {
            Next::Again => {}
            Next::Finished => return Ok(()),
            Next::Sleep { until_ns } => rest(&mut reactor, &park, until_ns).await?,
        }
        glommio::executor().yield_if_needed().await;
    }
}

async fn rest(reactor: &mut Reactor<Ring>, park: &ParkFile, until_ns: u64) -> Result<(), String> {
    let unusable = |errno| format!("io_uring_enter failed: {}", std::io::Error::from(errno));
    if crate::sys::clock::monotonic_ns().saturating_sub(reactor.busy_ns()) < PARK_AFTER_NS {
        return reactor.sleep(until_ns).map_err(unusable);
    }
    // A storm of logins leaves megabytes behind, and free memory between live one stays with the process unless asked for.
    if reactor.trim() {
        crate::sys::memory::give_back();
    }
    if reactor.prepare_park() {
        if reactor.io_mut().prepare_park(until_ns).map_err(unusable)? {
            park.wait().await.map_err(|error| format!("parking: {error}"))?;
        }
        reactor.io_mut().end_park();
    }
    Ok(())
}
