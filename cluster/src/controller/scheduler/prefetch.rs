//! How many tasks an engine is given before it has answered the first: its high-water mark.

use std::time::Duration;

/// The most tasks that an engine holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HighWater {
    /// One while tasks are long, more while they are short.
    Auto,
    /// No limit: tasks go to engines as they come.
    Unlimited,
    /// So many, at least one.
    Fixed(usize),
}

/// A task that takes this long is long: the way to the controller and back, 0.2 to 0.4 ms between two tasks, costs it little.
const LONG: Duration = Duration::from_millis(4);
/// All the work that an engine may hold if it holds more than two tasks, going by what the last ones took.
const AHEAD: Duration = Duration::from_millis(2);
/// Tasks in a row that must be short before any is given in advance, and again for each step up.
const TRUST: u32 = 16;
/// The most tasks that an engine is given in advance by [`HighWater::Auto`].
const DEEPEST: usize = 64;

/// The mark now.
///
/// A task that was given in advance waits behind the one that its engine is busy with, while other engines may be idle. So one long
/// task ends all advances, and short ones earn them back slowly: only where nearly all are short are many on their way. And an engine that is
/// at a long one gets none, however short those of the others are.
#[derive(Debug)]
pub(super) struct Prefetch {
    mark: HighWater,
    short_run: u32,
    /// Of what the last short tasks took, in nanoseconds.
    average: f64,
    depth: usize,
}

impl Prefetch {
    pub(super) fn new(mark: HighWater) -> Self {
        let depth = match mark {
            HighWater::Auto => 1,
            HighWater::Unlimited => usize::MAX,
            HighWater::Fixed(count) => count.max(1),
        };
        Self {
            mark,
            short_run: 0,
            average: 0.0,
            depth,
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// From when on a task that an engine is at is so long that none is to wait behind it; nothing where that doesn't matter.
    pub(super) fn long(&self) -> Option<Duration> {
        (self.mark == HighWater::Auto).then_some(LONG)
    }

    /// A task took so long. Says whether the mark has changed.
    pub(super) fn observe(&mut self, took: Duration) -> bool {
        if self.mark != HighWater::Auto {
            return false;
        }
        let before = self.depth;
        if took >= LONG {
            self.short_run = 0;
            self.average = 0.0;
            self.depth = 1;
            return before != 1;
        }
        self.short_run = self.short_run.saturating_add(1);
        let nanos = took.as_secs_f64() * 1e9;
        self.average += (nanos - self.average) / f64::from(self.short_run.min(TRUST));
        // By powers of two, so that it seldom changes.
        let earned = self.short_run / TRUST;
        let mut depth = 1;
        while depth < DEEPEST
            && u32::try_from(2 * depth).is_ok_and(|next| {
                let ahead = f64::from(next) * self.average;
                next <= earned && (next == 2 || ahead <= AHEAD.as_secs_f64() * 1e9)
            })
        {
            depth *= 2;
        }
        self.depth = depth;
        before != depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(10);

    #[test]
    fn short_tasks_earn_depth_and_a_long_one_ends_it() {
        let mut prefetch = Prefetch::new(HighWater::Auto);
        let mut changes = 0;
        for _ in 0..2000 {
            changes += u32::from(prefetch.observe(SHORT));
        }
        assert_eq!((prefetch.depth(), changes), (DEEPEST, 6));
        assert!(prefetch.observe(LONG));
        assert_eq!(prefetch.depth(), 1);
        for _ in 0..2 * TRUST - 1 {
            prefetch.observe(SHORT);
        }
        assert_eq!(prefetch.depth(), 1, "trust comes slowly");
        prefetch.observe(SHORT);
        assert_eq!(prefetch.depth(), 2);
    }

    #[test]
    fn beyond_one_in_advance_no_more_than_two_milliseconds_of_work_are_held() {
        let mut prefetch = Prefetch::new(HighWater::Auto);
        for _ in 0..2000 {
            prefetch.observe(Duration::from_micros(300));
        }
        assert_eq!(prefetch.depth(), 4);
        for _ in 0..2000 {
            prefetch.observe(Duration::from_millis(3));
        }
        assert_eq!(prefetch.depth(), 2, "one in advance");
    }

    #[test]
    fn one_long_task_among_thirty_allows_nothing() {
        let mut prefetch = Prefetch::new(HighWater::Auto);
        for task in 0..3000 {
            prefetch.observe(if task % 30 == 0 { LONG } else { SHORT });
            assert_eq!(prefetch.depth(), 1);
        }
    }

    #[test]
    fn a_mark_that_is_set_stays() {
        for (mark, depth) in [
            (HighWater::Fixed(3), 3),
            (HighWater::Fixed(0), 1),
            (HighWater::Unlimited, usize::MAX),
        ] {
            let mut prefetch = Prefetch::new(mark);
            assert!((0..1000).all(|_| !prefetch.observe(SHORT)));
            assert_eq!(prefetch.depth(), depth);
        }
    }
}
