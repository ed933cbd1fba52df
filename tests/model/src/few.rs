//! A list of so few items that it needs no heap: worlds are copied many million times.

use std::ops::{Deref, DerefMut};

/// Most items.
pub const ITEMS_MAX: usize = 3;

/// At most [`ITEMS_MAX`] items. Those beyond the end are always the default, so that equal lists are equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Few<T> {
    count: u8,
    items: [T; ITEMS_MAX],
}

impl<T: Copy + Default> Few<T> {
    /// Adds one. There must be room.
    pub fn push(&mut self, item: T) {
        self.items[usize::from(self.count)] = item;
        self.count += 1;
    }

    /// Drops all but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        for item in self.items.iter_mut().skip(count) {
            *item = T::default();
        }
        self.count = self.count.min(count as u8);
    }
}

impl<T: Copy + Default> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut few = Few::default();
        items.into_iter().for_each(|item| few.push(item));
        few
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..usize::from(self.count)]
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..usize::from(self.count)]
    }
}
