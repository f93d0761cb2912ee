//! Loans whose bytes the kernel is reading, found by the slot of the connection that sends them.
//!
//! Owns each loan from submission to completion. At most one per slot: a connection has one send in flight (contract of [`super::Io`]). Pages of 1,024
//! slots are made when first needed and never moved, so idle slots cost nothing and growth copies nothing.

use crate::memory::frames::Loan;

const PAGE_SLOTS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Loans {
    pages: Vec<Option<Box<[Option<Loan>]>>>,
    held: u32,
}

impl Loans {
    pub(super) fn put(&mut self, slot: u32, loan: Loan) {
        let (page, place) = split(slot);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let slots = self.pages[page].get_or_insert_with(|| (0..PAGE_SLOTS).map(|_| None).collect());
        let old = slots[place].replace(loan);
        assert!(old.is_none(), "two sends in flight for slot {slot}");
        self.held += 1;
    }

    /// `None` when the slot has no send in flight.
    pub(super) fn take(&mut self, slot: u32) -> Option<Loan> {
        let (page, place) = split(slot);
        let loan = self.pages.get_mut(page)?.as_mut()?[place].take()?;
        self.held -= 1;
        Some(loan)
    }

    pub(super) fn held(&self) -> u32 {
        self.held
    }
}

fn split(slot: u32) -> (usize, usize) {
    let slot = slot as usize;
    (slot / PAGE_SLOTS, slot % PAGE_SLOTS)
}
