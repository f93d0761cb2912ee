//! An array that runs parallel to a slab: same slot numbers, pages that never move, grown when a slot is first used.
//!
//! It holds what belongs to a slot but is not touched together with the slab's own values (hot state apart from cold). It knows nothing of
//! generations: the owner of a slot puts a value in and takes it out.

const PAGE_BITS: u32 = 10;
const PAGE_SLOTS: usize = 1 << PAGE_BITS;

/// Values by slot; a slot nothing was put into reads as `None`.
#[derive(Debug)]
pub struct Parallel<T> {
    pages: Vec<Box<[Option<T>]>>,
    len: usize,
}

impl<T> Default for Parallel<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

impl<T> Parallel<T> {
    pub fn get(&self, slot: u32) -> Option<&T> {
        let (page, place) = split(slot);
        self.pages.get(page)?[place].as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let (page, place) = split(slot);
        self.pages.get_mut(page)?[place].as_mut()
    }

    /// Puts a value in and gives back what was there.
    pub fn put(&mut self, slot: u32, value: T) -> Option<T> {
        let (page, place) = split(slot);
        while self.pages.len() <= page {
            self.pages.push((0..PAGE_SLOTS).map(|_| None).collect());
        }
        let before = self.pages[page][place].replace(value);
        self.len += usize::from(before.is_none());
        before
    }

    pub fn take(&mut self, slot: u32) -> Option<T> {
        let (page, place) = split(slot);
        let value = self.pages.get_mut(page)?[place].take();
        self.len -= usize::from(value.is_some());
        value
    }

    /// Slots that hold a value.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn split(slot: u32) -> (usize, usize) {
    ((slot >> PAGE_BITS) as usize, slot as usize & (PAGE_SLOTS - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_where_it_was_put_until_it_is_taken() {
        let mut pages = Parallel::default();
        assert_eq!(pages.get(5000), None);
        assert_eq!(pages.put(5000, 'a'), None);
        assert_eq!(pages.put(0, 'b'), None);
        assert_eq!(pages.put(5000, 'c'), Some('a'));
        assert_eq!((pages.get(5000), pages.get(0), pages.len()), (Some(&'c'), Some(&'b'), 2));
        assert_eq!((pages.take(5000), pages.take(5000), pages.take(1 << 23)), (Some('c'), None, None));
        assert_eq!(pages.len(), 1);
    }
}
