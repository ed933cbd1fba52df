//! Deliberate mistakes, by name, to prove that the simulation finds them.
//!
//! `mutant!("name")` is constantly false, except in a build with `--cfg highwater_mutants` (see `tests/sim`), where one mutant can be
//! chosen for the whole process, once, before anything runs.

#[cfg(highwater_mutants)]
use std::sync::OnceLock;

/// Whether this mistake is to be made here: false, unless the build knows mutants and this one was chosen.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::is($name)
    };
}

#[cfg(highwater_mutants)]
static CHOSEN: OnceLock<String> = OnceLock::new();

/// Chooses the mutant of this process. False if one was chosen before.
#[cfg(highwater_mutants)]
pub fn choose(name: &str) -> bool {
    CHOSEN.set(name.to_owned()).is_ok()
}

/// Whether this is the chosen mutant.
#[cfg(highwater_mutants)]
pub fn is(name: &str) -> bool {
    CHOSEN.get().is_some_and(|chosen| chosen == name)
}

/// No build but the simulation's knows mutants.
#[cfg(not(highwater_mutants))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}
