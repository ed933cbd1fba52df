//! Answers that are much work to make: each is made once a second at most, for all who ask.
//!
//! Whoever asks while an answer is being made, or within a second after, gets that one. It is made also if whoever asked first has gone:
//! browsers that come and go in a hurry cannot have it made more often.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// For how long an answer is good after it was made.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Different answers that are being made or kept at the same time.
pub(super) const KEPT_MAX: usize = 64;

/// An answer; None while it is being made, or if it cannot be.
type Told<V> = watch::Receiver<Option<Arc<V>>>;
type Table<K, V> = Mutex<HashMap<K, Told<V>>>;

/// The answers of the last second, by what was asked.
pub(super) struct Kept<K, V>(Arc<Table<K, V>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Kept<K, V> {
        Kept(Arc::default())
    }
}

impl<K, V> Kept<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Send + Sync + 'static,
{
    /// The answer to a question, as `make` makes it if there is none. None: it cannot be made, or so many others were asked for within a
    /// second that there is no room.
    pub(super) async fn get(&self, key: K, make: impl Future<Output = Option<V>> + Send + 'static) -> Option<Arc<V>> {
        let mut told = self.told(key, make)?;
        let answer = told.wait_for(Option::is_some).await.ok()?;
        answer.clone()
    }

    /// Where the answer will be, or is.
    fn told(&self, key: K, make: impl Future<Output = Option<V>> + Send + 'static) -> Option<Told<V>> {
        let mut table = lock(&self.0);
        if let Some(told) = table.get(&key) {
            return Some(told.clone());
        }
        if table.len() >= KEPT_MAX {
            return None;
        }
        let (tell, told) = watch::channel(None);
        table.insert(key.clone(), told.clone());
        let table = self.0.clone();
        tokio::spawn(async move {
            let made = tokio::spawn(make).await; // by itself: should it panic, its place is still given back
            tell.send_replace(made.ok().flatten().map(Arc::new));
            sleep(AGE_MAX).await;
            lock(&table).remove(&key);
        });
        Some(told)
    }
}

fn lock<K, V>(table: &Table<K, V>) -> MutexGuard<'_, HashMap<K, Told<V>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::timeout;

    use super::*;

    /// Longer than an answer is kept.
    const WORK: Duration = Duration::from_secs(3);

    /// Something that takes long, and says how often it was done.
    #[derive(Clone, Default)]
    struct Work(Arc<AtomicU32>);

    impl Work {
        async fn done(self) -> Option<u32> {
            let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            sleep(WORK).await;
            Some(count)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_it_is_made_once_and_again_a_second_later() {
        let (kept, work) = (Kept::default(), Work::default());
        let ask = || kept.get("groups", work.clone().done());
        let late = async {
            sleep(WORK / 2).await;
            ask().await
        };
        let (first, second, late) = tokio::join!(ask(), ask(), late);
        assert_eq!(
            [first, second, late].map(|answer| answer.as_deref().copied()),
            [Some(1); 3]
        );
        sleep(AGE_MAX / 2).await;
        assert_eq!(ask().await.as_deref(), Some(&1));
        sleep(AGE_MAX).await;
        assert_eq!(ask().await.as_deref(), Some(&2));
        assert_eq!(kept.get("others", work.done()).await.as_deref(), Some(&3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_goes_does_not_have_it_made_again() {
        let (kept, work) = (Kept::default(), Work::default());
        for _ in 0..3 {
            let hurried = timeout(WORK / 10, kept.get("groups", work.clone().done())).await;
            assert!(hurried.is_err());
        }
        assert_eq!(kept.get("groups", work.done()).await.as_deref(), Some(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_made_is_none_and_tried_again() {
        let kept: Kept<&str, u32> = Kept::default();
        assert_eq!(kept.get("groups", async { None }).await, None);
        assert_eq!(kept.get("groups", async { Some(1) }).await.as_deref(), Some(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_a_second() {
        let kept: Kept<usize, usize> = Kept::default();
        for number in 0..KEPT_MAX {
            let told = kept.get(number, async move { Some(number) }).await;
            assert_eq!(told.as_deref(), Some(&number));
        }
        let ask = async || kept.get(KEPT_MAX, async { Some(KEPT_MAX) }).await;
        assert_eq!(ask().await, None);
        sleep(AGE_MAX * 2).await;
        assert_eq!(ask().await.as_deref(), Some(&KEPT_MAX));
        assert_eq!(lock(&kept.0).len(), 1);
    }
}
