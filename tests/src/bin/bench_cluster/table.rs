//! How figures are printed.

use std::time::Duration;

/// The value below which that share of the sorted times lies; zero if there are none.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(last)).copied().unwrap_or_default()
}

/// One line: median, nearly all, the longest; milliseconds.
pub(crate) fn times(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |share| quantile(&times, share).as_secs_f64() * 1_000.0;
    println!(
        "  {name:<44} p50 {:>9.2} ms   p99 {:>9.2} ms   longest {:>9.2} ms   of {}",
        ms(0.5),
        ms(0.99),
        ms(1.0),
        times.len()
    );
}

/// One line with a number.
pub(crate) fn number(name: &str, number: impl std::fmt::Display) {
    println!("  {name:<44} {number}");
}
