//! Who carries out a run: this process's own workers, or agents elsewhere. To the reporter both are lanes that report.

use crossbeam_channel::Receiver;

use super::Failure;
use super::crew::Crew;
use super::fleet::Fleet;
use super::record::Interval;
use super::worker::Report;

#[derive(Debug)]
pub(super) enum Party {
    Own(Crew),
    Fleet(Fleet),
}

impl Party {
    /// How many report.
    pub(super) fn lanes(&self) -> usize {
        match self {
            Self::Own(crew) => crew.shared.gauges.len(),
            Self::Fleet(fleet) => fleet.lanes(),
        }
    }

    pub(super) fn reports(&self) -> &Receiver<(u16, Report)> {
        match self {
            Self::Own(crew) => &crew.reports,
            Self::Fleet(fleet) => &fleet.reports,
        }
    }

    /// Sets the clock; the first message may be due this long from now.
    pub(super) fn begin(&mut self, in_ns: u64) -> Result<(), Failure> {
        match self {
            Self::Own(crew) => {
                crew.begin(in_ns);
                Ok(())
            }
            Self::Fleet(fleet) => fleet.begin(in_ns),
        }
    }

    pub(super) fn since_start_ns(&self) -> Option<u64> {
        match self {
            Self::Own(crew) => crew.since_start_ns(),
            Self::Fleet(fleet) => fleet.since_start_ns(),
        }
    }

    /// End of sending, since the start.
    pub(super) fn end_ns(&self) -> u64 {
        match self {
            Self::Own(crew) => crew.end_ns(),
            Self::Fleet(fleet) => fleet.end_ns(),
        }
    }

    /// Ends the window now.
    pub(super) fn cut_short(&mut self) {
        match self {
            Self::Own(crew) => crew.cut_short(),
            Self::Fleet(fleet) => fleet.cut_short(),
        }
    }

    /// Deliveries up to this moment, where they can be counted at this moment.
    pub(super) fn received(&self) -> Option<u64> {
        match self {
            Self::Own(crew) => Some(crew.shared.received()),
            Self::Fleet(_) => None,
        }
    }

    /// Deliveries on their way.
    pub(super) fn missing(&self) -> u64 {
        match self {
            Self::Own(crew) => crew.shared.missing(),
            Self::Fleet(fleet) => fleet.missing(),
        }
    }

    pub(super) fn logged_in(&self) -> Option<u64> {
        match self {
            Self::Own(crew) => Some(crew.shared.logged_in()),
            Self::Fleet(_) => None,
        }
    }

    /// Gives an emptied interval back to whom it came from.
    pub(super) fn give_back(&self, lane: u16, interval: Box<Interval>) {
        if let Self::Own(crew) = self {
            crew.give_back(lane, interval);
        }
    }

    /// Lanes that have ended, whether they said so or not.
    pub(super) fn ended(&self) -> usize {
        match self {
            Self::Own(crew) => crew.ended(),
            // An ear that ends has sent why.
            Self::Fleet(_) => 0,
        }
    }

    pub(super) fn join(&mut self) {
        match self {
            Self::Own(crew) => crew.join(),
            Self::Fleet(fleet) => fleet.join(),
        }
    }

    pub(super) fn cpu(&self, lane: u16) -> Option<u16> {
        match self {
            Self::Own(crew) => crew.cpu(lane),
            Self::Fleet(_) => None,
        }
    }
}
