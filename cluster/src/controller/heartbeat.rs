//! Which engines live: when to ask them, and when silence means death. No clock and no socket in it.
//!
//! Engines send every beat of the controller's back. Besides, engines made here are probed: a message to one whose process
//! has ended cannot be sent, and tells so long before enough beats are missed.

use std::collections::HashMap;
use std::time::Duration;

/// How often engines are probed.
const PROBE: Duration = Duration::from_millis(400);
/// Probes that must fail in a row: a connection may break and come back.
const PROBES: u32 = 2;
/// How often to beat while an engine that cannot announce itself is registering.
const HURRY: Duration = Duration::from_millis(100);

/// All engines' hearts, by uuid. Times are since the controller's start.
#[derive(Debug)]
pub struct Hearts {
    period: Duration,
    misses: u32,
    hearts: HashMap<String, Heart>,
    next_beat: Duration,
    next_check: Duration,
    next_probe: Duration,
}

#[derive(Debug, Default)]
struct Heart {
    beat: bool,
    missed: u32,
    probed: bool,
    unreachable: u32,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Send a beat to all.
    pub beat: bool,
    /// Send a probe to these.
    pub probe: Vec<String>,
    /// These are dead.
    pub dead: Vec<String>,
}

impl Hearts {
    /// Beats every `period`; `misses` unanswered ones in a row are an engine's death.
    pub fn new(period: Duration, misses: u32) -> Self {
        Self {
            period,
            misses,
            hearts: HashMap::new(),
            next_beat: Duration::ZERO,
            next_check: period,
            next_probe: PROBE,
        }
    }

    /// Time between two beats.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// From now on this engine is expected to beat; `probed`: and to take probes.
    pub fn watch(&mut self, uuid: &str, probed: bool) {
        let heart = Heart {
            beat: true,
            probed,
            ..Heart::default()
        };
        self.hearts.insert(uuid.to_owned(), heart);
    }

    /// This engine is no longer expected to beat.
    pub fn forget(&mut self, uuid: &str) {
        self.hearts.remove(uuid);
    }

    /// The engine answered a beat. Says whether it is one of those that are watched.
    pub fn on_beat(&mut self, uuid: &str) -> bool {
        match self.hearts.get_mut(uuid) {
            Some(heart) => {
                (heart.beat, heart.missed) = (true, 0);
                true
            }
            None => false,
        }
    }

    /// A probe was sent, or could not be. Says whether the engine is dead.
    pub fn on_probe(&mut self, uuid: &str, sent: bool) -> bool {
        let Some(heart) = self.hearts.get_mut(uuid) else {
            return false;
        };
        heart.unreachable = if sent { 0 } else { heart.unreachable + 1 };
        heart.unreachable >= PROBES
    }

    /// When [`Self::on_time`] is to be called at the latest. `hurry`: somebody waits to be registered by his first beat.
    pub fn deadline(&self, hurry: bool) -> Duration {
        let mut deadline = self.next_check.min(self.next_beat);
        if hurry {
            deadline = deadline.min((self.next_beat + HURRY).saturating_sub(self.period));
        }
        if self.hearts.values().any(|heart| heart.probed) {
            deadline = deadline.min(self.next_probe);
        }
        deadline
    }

    /// What is due at `now`.
    pub fn on_time(&mut self, now: Duration, hurry: bool) -> Due {
        let mut due = Due::default();
        let last_beat = self.next_beat.saturating_sub(self.period);
        if now >= self.next_beat || (hurry && now >= last_beat + HURRY.min(self.period)) {
            due.beat = true;
            self.next_beat = now + self.period;
        }
        if now >= self.next_check {
            self.next_check = now + self.period;
            for (uuid, heart) in &mut self.hearts {
                heart.missed = if heart.beat { 0 } else { heart.missed + 1 };
                heart.beat = false;
                if heart.missed > self.misses {
                    due.dead.push(uuid.clone());
                }
            }
        }
        if now >= self.next_probe {
            self.next_probe = now + PROBE;
            let probed = self.hearts.iter().filter(|(_, heart)| heart.probed);
            due.probe.extend(probed.map(|(uuid, _)| uuid.clone()));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_death_after_so_many_beats() {
        let mut hearts = Hearts::new(SECOND, 2);
        hearts.watch("a", false);
        hearts.watch("b", false);
        let mut died = Vec::new();
        for second in 1..10 {
            assert!(hearts.on_beat("b"));
            let due = hearts.on_time(SECOND * second, false);
            assert!(due.beat && due.probe.is_empty());
            for uuid in due.dead {
                hearts.forget(&uuid);
                died.push((second, uuid));
            }
        }
        // It counts as beating when it is first watched, then misses the 2nd, 3rd and 4th check.
        assert_eq!(died, [(4, "a".to_owned())]);
        assert!(!hearts.on_beat("a"));
    }

    #[test]
    fn a_process_that_ended_is_found_by_two_probes() {
        let mut hearts = Hearts::new(SECOND, 10);
        hearts.watch("a", true);
        assert_eq!(hearts.on_time(PROBE, false).probe, ["a"]);
        assert!(!hearts.on_probe("a", false));
        assert!(!hearts.on_probe("a", true), "it came back");
        assert!(!hearts.on_probe("a", false));
        assert!(hearts.on_probe("a", false));
        assert!(!hearts.on_probe("unknown", false));
    }

    #[test]
    fn beats_hurry_while_somebody_registers() {
        let mut hearts = Hearts::new(SECOND, 10);
        assert!(hearts.on_time(Duration::ZERO, false).beat);
        assert_eq!(hearts.deadline(false), SECOND);
        assert_eq!(hearts.deadline(true), HURRY);
        assert!(!hearts.on_time(HURRY, false).beat);
        assert!(hearts.on_time(HURRY, true).beat);
        assert!(!hearts.on_time(HURRY + HURRY / 2, true).beat);
    }

    #[test]
    fn the_deadline_always_makes_something_due() {
        let mut hearts = Hearts::new(Duration::from_millis(70), 3);
        hearts.watch("a", true);
        for step in 0..100 {
            let hurry = step % 3 == 0;
            let now = hearts.deadline(hurry);
            assert!(
                hearts.on_time(now, hurry) != Due::default() || hearts.deadline(hurry) > now,
                "at {now:?} nothing happens"
            );
        }
    }
}
