//! A list that grows by pages: what stands in it never moves, and growing never copies more than page headers.
//!
//! The ground under the slab, the frame store, the chunks of the queues and the links of the wheels. It owns the pages and hands out
//! references by index; it never shrinks, never moves an item and never allocates but in [`Pages::push`], one page at a time.
//!
//! A page's items are written as they are pushed, not when the page is made: writing a page of 1,024 items of 200 bytes at once was a stall of
//! 112 us. The price is a second length to compare with: 4.2 against 3.8 ns for a look-up among 15,000 items.

/// Items of a page.
pub(super) const PAGE_ITEMS: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 10;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;

#[derive(Debug)]
pub(super) struct Pages<T> {
    /// Each made with its full capacity and never pushed beyond it.
    pages: Vec<Vec<T>>,
    len: u32,
    len_max: u32,
}

impl<T> Pages<T> {
    /// An empty list of at most `len_max` items; nothing is allocated yet.
    pub(super) fn new(len_max: u32) -> Self {
        Pages { pages: Vec::new(), len: 0, len_max }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.len_max
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.pages.get((index >> PAGE_BITS) as usize)?.get((index & PAGE_MASK) as usize)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages.get_mut((index >> PAGE_BITS) as usize)?.get_mut((index & PAGE_MASK) as usize)
    }

    /// As [`Pages::get`], for an index that our own state vouches for.
    #[inline]
    pub(super) fn at(&self, index: u32) -> &T {
        &self.pages[(index >> PAGE_BITS) as usize][(index & PAGE_MASK) as usize]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut T {
        &mut self.pages[(index >> PAGE_BITS) as usize][(index & PAGE_MASK) as usize]
    }

    /// Appends and says where. The list must not be full.
    pub(super) fn push(&mut self, item: T) -> u32 {
        assert!(!self.is_full(), "a full list of pages was pushed to");
        let index = self.len;
        if index & PAGE_MASK == 0 {
            self.pages.push(Vec::with_capacity(PAGE_ITEMS.min((self.len_max - index) as usize)));
        }
        let page = &mut self.pages[(index >> PAGE_BITS) as usize];
        debug_assert!(page.len() < page.capacity(), "a page would move");
        page.push(item);
        self.len += 1;
        index
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_never_move_while_the_list_grows() {
        let mut pages = Pages::new(5_000);
        let mut places = Vec::new();
        for i in 0..5_000u32 {
            let index = pages.push(i);
            assert_eq!(index, i);
            places.push(std::ptr::from_ref(pages.at(index)));
        }
        for i in 0..5_000u32 {
            assert_eq!(*pages.at(i), i);
            assert_eq!(std::ptr::from_ref(pages.at(i)), places[i as usize]);
        }
    }

    #[test]
    fn the_bound_is_exact_and_a_small_list_takes_a_small_page() {
        let mut pages = Pages::new(3);
        for _ in 0..3 {
            pages.push(0u8);
        }
        assert!(pages.is_full());
        assert_eq!(pages.pages[0].capacity(), 3);
        assert!(pages.get(3).is_none() && pages.get(u32::MAX).is_none() && pages.get_mut(1_024).is_none());
    }
}
