//! Planted bugs: with the feature `mutations`, a test switches one on and the simulation has to find it.
//!
//! Without the feature [`planted`] is the constant `false` and costs nothing.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutation {
    /// A connection's slot is freed while its send is in flight.
    FreeSlotInFlight = 1,
    /// Two neighbours of an outbox change places.
    SwapEnvelopes,
    /// A doorbell is not rung.
    LoseWakeup,
    /// A receive is armed before the cancelled one has ended.
    ArmBeforeCancelEnd,
    /// A fan-out stops in the middle.
    CutFanout,
    /// A replay leaves out its first message.
    ReplayShort,
    /// A replay comes twice.
    ReplayTwice,
    /// A position counts as recovered though what was behind it has been forgotten.
    RecoverForgotten,
    /// A page says that nothing follows.
    PageWithoutMore,
    /// A key is not remembered.
    ForgetKey,
    /// An answer of the log is taken for whatever append is in its slot now.
    TakeStaleToken,
    /// A room's home does not hear that a member has ended.
    KeepGhost,
    /// A session does not end with its token.
    OutliveToken,
    /// A token's rights are not looked at.
    IgnoreRights,
    /// A connection that ends leaves its question to the verifier behind.
    KeepQuestion,
    /// Whose `send` was deferred is not read from again.
    LoseRelease,
    /// A bucket has no brim.
    OverfillBucket,
    /// Messages are dropped for a slow reader without a gap.
    LoseGap,
    /// A gap before a `joined` is taken to speak of what comes behind it, too.
    OldGapSpeaks,
    /// A user that has come back is said to have gone.
    ForgetReturn,
}

impl Mutation {
    pub const ALL: [Mutation; 20] = [
        Mutation::FreeSlotInFlight,
        Mutation::SwapEnvelopes,
        Mutation::LoseWakeup,
        Mutation::ArmBeforeCancelEnd,
        Mutation::CutFanout,
        Mutation::ReplayShort,
        Mutation::ReplayTwice,
        Mutation::RecoverForgotten,
        Mutation::PageWithoutMore,
        Mutation::ForgetKey,
        Mutation::TakeStaleToken,
        Mutation::KeepGhost,
        Mutation::OutliveToken,
        Mutation::IgnoreRights,
        Mutation::KeepQuestion,
        Mutation::LoseRelease,
        Mutation::OverfillBucket,
        Mutation::LoseGap,
        Mutation::OldGapSpeaks,
        Mutation::ForgetReturn,
    ];
}

#[cfg(feature = "mutations")]
mod on {
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<super::Mutation>> = const { Cell::new(None) };
    }

    /// Plants one bug in this thread, or none.
    pub fn plant(mutation: Option<super::Mutation>) {
        PLANTED.with(|p| p.set(mutation));
    }

    #[inline]
    pub fn planted(mutation: super::Mutation) -> bool {
        PLANTED.with(|p| p.get() == Some(mutation))
    }
}

#[cfg(feature = "mutations")]
pub use on::{plant, planted};

#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub fn planted(_mutation: Mutation) -> bool {
    false
}
