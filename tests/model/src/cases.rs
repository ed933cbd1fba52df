//! What is checked: each rule kept, and each rule broken.

use std::fmt;

use stateright::{Checker, Model, Property};

use crate::disk::What;
use crate::rules::{Bounds, Mistake, StayedUp};
use crate::steps::{Rules, Step};
use crate::world::{Broken, World};

const THREADS: usize = 2;

impl Model for Rules {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let Bounds {
            crashes, rot, replace, ..
        } = self.bounds;
        vec![World::new(crashes, rot, rot == 0 && !replace)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_none() {
            self.steps(steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = *world;
        self.apply(&mut next, step)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("a term has one leader", |_, world: &World| {
                world.broken != Some(Broken::TwoLeaders)
            }),
            Property::always("what was committed stays", |_, world: &World| {
                world.broken != Some(Broken::CommittedLost)
            }),
            Property::always("what is served was committed", |rules: &Rules, world: &World| {
                world.serves_truth(rules.mistake == Some(Mistake::DamageServed))
            }),
            Property::always("who has lost nothing is not dead", |_, world: &World| {
                world.broken != Some(Broken::DeadForNothing)
            }),
            Property::sometimes("all entries are committed", |rules: &Rules, world: &World| {
                world.committed.len() == rules.bounds.entries
            }),
        ];
        if self.bounds.replace {
            properties.push(Property::sometimes("a place is given away", |_, world: &World| {
                world
                    .committed
                    .iter()
                    .any(|entry| matches!(entry.what, What::Swapped(_)))
            }));
        }
        if self.bounds.rot > 0 {
            properties.push(Property::sometimes("what rotted is whole again", |_, world: &World| {
                let log = &world.replicas[0].disk.log;
                world.rot == 0 && log.iter().all(|slot| !slot.bad)
            }));
        }
        properties
    }
}

/// What a check must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Everything holds, in every state.
    Holds,
    /// Something does not, and is found.
    Refuted,
}

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is checked.
    pub name: &'static str,
    /// In which world.
    pub bounds: Bounds,
    /// And in which larger one, when there is time.
    pub long: Bounds,
    /// With which mistake.
    pub mistake: Option<Mistake>,
    /// With which result.
    pub expected: Expected,
}

/// What a check came to.
#[derive(Debug)]
pub struct Found {
    /// Different states seen.
    pub states: usize,
    /// The longest way from the start.
    pub depth: usize,
    /// What does not hold, and the steps that show it; or what never happened, without steps.
    pub refuted: Option<(&'static str, Vec<Step>)>,
}

impl Found {
    /// Whether it is what was expected. A rule that is kept must hold; a mistake must be shown by a way to what must never be.
    pub fn is(&self, expected: Expected) -> bool {
        match expected {
            Expected::Holds => self.refuted.is_none(),
            Expected::Refuted => self.refuted.as_ref().is_some_and(|(_, steps)| !steps.is_empty()),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} states, depth {}", self.states, self.depth)?;
        match &self.refuted {
            None => write!(out, ": holds"),
            Some((what, steps)) if steps.is_empty() => write!(out, ": not once: {what}"),
            Some((what, steps)) => write!(out, ": not true: {what}, after {} steps", steps.len()),
        }
    }
}

impl Case {
    /// Goes through all states; stops at the first that must not be.
    pub fn check(&self, is_long: bool) -> Found {
        let bounds = if is_long { self.long } else { self.bounds };
        let rules = Rules {
            bounds,
            mistake: self.mistake,
        };
        let always = |rules: &Rules| -> std::collections::HashSet<&'static str> {
            let all = rules.properties().into_iter();
            let always = all.filter(|property| property.expectation == stateright::Expectation::Always);
            always.map(|property| property.name).collect()
        };
        let stop = stateright::HasDiscoveries::AnyOf(always(&rules).into_iter().collect());
        let checker = rules.checker().threads(THREADS).finish_when(stop).spawn_bfs().join();
        let found = checker.discoveries();
        let broken = found.into_iter().find(|(name, _)| always(&rules).contains(name));
        let refuted = match broken {
            Some((name, path)) => Some((name, path.into_actions())),
            None => rules
                .properties()
                .into_iter()
                .find(|property| {
                    property.expectation == stateright::Expectation::Sometimes
                        && checker.discovery(property.name).is_none()
                })
                .map(|property| (property.name, Vec::new())),
        };
        Found {
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
            refuted,
        }
    }
}

/// In the small worlds without other harm only one can crash; any of them would do.
const PLAIN: Bounds = Bounds {
    crash_of: 1,
    ..Bounds::new(3, 2, 1)
};
const PLAIN_LONG: Bounds = Bounds::new(3, 3, 2);
const DEAD: Bounds = Bounds {
    wipe: true,
    lose: true,
    ..Bounds::new(2, 2, 2)
};
const DEAD_LONG: Bounds = Bounds { terms: 3, ..DEAD };
const COPIED: Bounds = Bounds {
    copy: Some(StayedUp::Witnesses),
    ..Bounds::new(2, 2, 1)
};
const COPIED_LONG: Bounds = Bounds { crashes: 2, ..COPIED };
/// A log becomes shorter, rightly: only over many terms.
const SHORTENED: Bounds = Bounds {
    crash_of: 1,
    ..Bounds::new(4, 1, 2)
};
const ROTTEN: Bounds = Bounds {
    rot: 2,
    ..Bounds::new(2, 2, 1)
};
const ROTTEN_LONG: Bounds = Bounds {
    rot: 2,
    ..Bounds::new(3, 3, 1)
};
const REPLACED: Bounds = Bounds {
    replace: true,
    crash_of: 1,
    ..Bounds::new(2, 3, 1)
};
const REPLACED_LONG: Bounds = Bounds {
    crashes: 2,
    crash_of: !0,
    ..REPLACED
};

const fn kept(name: &'static str, bounds: Bounds, long: Bounds) -> Case {
    Case {
        name,
        bounds,
        long,
        mistake: None,
        expected: Expected::Holds,
    }
}

/// Broken in the small world already.
const fn broken(name: &'static str, bounds: Bounds, mistake: Mistake) -> Case {
    Case {
        name,
        bounds,
        long: bounds,
        mistake: Some(mistake),
        expected: Expected::Refuted,
    }
}

/// Safe only as long as what the rule assumes is true: here it is not.
const fn beyond(name: &'static str, stayed_up: StayedUp) -> Case {
    let bounds = Bounds {
        copy: Some(stayed_up),
        ..COPIED_LONG
    };
    Case {
        name,
        bounds,
        long: bounds,
        mistake: None,
        expected: Expected::Refuted,
    }
}

/// All checks.
pub const CASES: &[Case] = &[
    kept("crashes", PLAIN, PLAIN_LONG),
    kept("a wiped directory, a lost vote, a lost log end", DEAD, DEAD_LONG),
    kept(
        "an old copy, all to whom something was promised stayed up",
        COPIED,
        COPIED_LONG,
    ),
    kept("rotten entries", ROTTEN, ROTTEN_LONG),
    kept("a replica replaced under a new id", REPLACED, REPLACED_LONG),
    broken("a wiped replica votes as its former self", DEAD, Mistake::WipedVotes),
    broken("a replica that lost its vote votes", DEAD, Mistake::LostVoteVotes),
    broken("a replica that lost its log's end votes", DEAD, Mistake::LostEndVotes),
    broken("an old copy does not ask", COPIED, Mistake::Unasked),
    broken("the others remember no log ends", COPIED, Mistake::LogEndsForgotten),
    broken("log ends count under any vote", SHORTENED, Mistake::LogEndsOfAnyVote),
    broken(
        "a leader does not show its own log",
        COPIED,
        Mistake::LeaderShowsNothing,
    ),
    beyond(
        "an old copy, one other stayed up, which was promised nothing",
        StayedUp::One,
    ),
    beyond("an old copy, all stayed up, one answers", StayedUp::AllOneAnswers),
    broken(
        "a refill from what is not committed",
        ROTTEN,
        Mistake::RefillUncommitted,
    ),
    broken("damage is served", ROTTEN, Mistake::DamageServed),
    broken("the new id counts as the old one", REPLACED, Mistake::NewCountsAsOld),
    broken("the voters are swapped in one step", REPLACED, Mistake::SwapInOneStep),
];
