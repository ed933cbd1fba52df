//! Deliberate mistakes, by name, to prove that the simulation finds them.
//!
//! `mutant!("name")` is the constant `false`, except in a build with `--cfg highwater_mutants` (see `tests/sim`), where one
//! mutant can be chosen for the whole process, once, before anything runs.

/// Whether this mistake is to be made here: `false`, unless the build knows mutants and this one was chosen.
#[cfg(not(highwater_mutants))]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// Whether this mistake is to be made here: `false`, unless the build knows mutants and this one was chosen.
#[cfg(highwater_mutants)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::is($name)
    };
}

#[cfg(highwater_mutants)]
static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();

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
