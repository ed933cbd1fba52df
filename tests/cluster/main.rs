//! A cluster that goes on and heals by itself: one fault after the other by name, on real processes and links.
//!
//! Each test says what must happen while the fault lasts. At its end the history checker judges what every client was told and
//! what every replica holds: nothing lost, doubled or reordered, nothing served that was not committed; and a fault that did
//! nothing fails its test, since that would prove nothing. Randomised mixtures of the same faults are `make chaos`.

mod addresses;
mod growth;
mod links;
mod processes;
mod recovery;
