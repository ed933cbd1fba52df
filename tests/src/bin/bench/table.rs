//! How figures are printed: columns as wide as their widest cell, numbers to the right.

/// Prints rows under a heading.
pub(crate) fn print<const N: usize>(title: &str, heading: [&str; N], rows: &[[String; N]]) {
    let heading = heading.map(str::to_owned);
    let lines = || std::iter::once(&heading).chain(rows);
    let widths: Vec<usize> = (0..N)
        .map(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    println!("\n{title}");
    for line in lines() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        println!("  {}", cells.collect::<Vec<_>>().join("  "));
    }
}

/// A number with so many digits and its unit; a dash if it is not known.
pub(crate) fn figure(number: f64, digits: usize, unit: &str) -> String {
    if number.is_nan() {
        return "-".to_owned();
    }
    format!("{number:.digits$}{unit}")
}
