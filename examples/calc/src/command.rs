//! What can be asked, and the answers.
//!
//! A command is a word and integers, with blanks between them. The prompt reads it before it is published, so that what is wrong is explained
//! at once; a back end reads it again, for anybody may append to a topic.
//!
//! Invariant: whatever the text, there is an answer or a [`Problem`]; nothing panics, and nothing overflows: numbers have 64 bits, and a
//! sum of as many as are allowed has fewer than 128.

use crate::primes;

/// How long a command may be, bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// How many numbers a command may have.
pub const NUMBERS_MAX: usize = 1_000;

/// What the prompt answers to `help`.
pub const HELP: &str = "\
add N...   the sum
max N...   the largest
np N...    the N-th prime of each N: np 2 12 is 3 37
help       this text
exit       ends (so does the end of input)

Numbers are integers from -9223372036854775808 to 9223372036854775807, at most 1000 in a command;
those of np are from 1 to 100000000. A sum may be larger, and is exact.";

/// A command that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The sum.
    Add(Vec<i64>),
    /// The largest; at least one number.
    Max(Vec<i64>),
    /// The primes of these numbers, each from 1 to [`primes::NUMBER_MAX`].
    Primes(Vec<u32>),
}

/// What is wrong with a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no such command.
    #[error("there is no command {0:?}: add, max, np, help and exit are known")]
    Unknown(String),
    /// Nothing to calculate with.
    #[error("{0} needs at least one number, as in: {0} 2 5")]
    NoNumbers(&'static str),
    /// Too much to calculate with.
    #[error("{0} numbers are too many: a command has at most {NUMBERS_MAX}")]
    TooMany(usize),
    /// Too long.
    #[error("the command has {0} bytes: at most {TEXT_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Not an integer, or too large a one.
    #[error("{0:?} is not an integer from {min} to {max}", min = i64::MIN, max = i64::MAX)]
    NoInteger(String),
    /// No prime has that number, or none that is looked for.
    #[error("there is no prime number {0}: the first is number 1, and the last that is looked for is number {max}", max = primes::NUMBER_MAX)]
    NoSuchPrime(i64),
}

/// How much of a wrong word is repeated in its problem, letters.
const SHOWN_LETTERS: usize = 40;

impl Command {
    /// Reads a command.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn read(text: &str) -> Result<Self, Problem> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Problem::TooLong(text.len()));
        }
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        match name {
            "add" => Ok(Self::Add(integers("add", &words)?)),
            "max" => Ok(Self::Max(integers("max", &words)?)),
            "np" => Ok(Self::Primes(prime_numbers(&words)?)),
            _ => Err(Problem::Unknown(shown(name))),
        }
    }

    /// The command's word: a name for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Max(_) => "max",
            Self::Primes(_) => "np",
        }
    }

    /// The answer. That to `np` may take seconds of a core.
    ///
    /// # Errors
    /// [`Problem`], if the command was not [read](Self::read) but made.
    pub fn answer(&self) -> Result<String, Problem> {
        match self {
            Self::Add(numbers) => Ok(numbers.iter().copied().map(i128::from).sum::<i128>().to_string()),
            Self::Max(numbers) => match numbers.iter().max() {
                Some(largest) => Ok(largest.to_string()),
                None => Err(Problem::NoNumbers("max")),
            },
            Self::Primes(numbers) => {
                let primes = primes::nth(numbers).ok_or(Problem::NoSuchPrime(0))?;
                let primes: Vec<String> = primes.iter().map(u64::to_string).collect();
                Ok(primes.join(" "))
            }
        }
    }
}

fn integers(name: &'static str, words: &[&str]) -> Result<Vec<i64>, Problem> {
    match words.len() {
        0 => return Err(Problem::NoNumbers(name)),
        1..=NUMBERS_MAX => {}
        count => return Err(Problem::TooMany(count)),
    }
    let integer = |word: &&str| word.parse().map_err(|_| Problem::NoInteger(shown(word)));
    words.iter().map(integer).collect()
}

fn prime_numbers(words: &[&str]) -> Result<Vec<u32>, Problem> {
    let number = |integer: i64| match u32::try_from(integer) {
        Ok(number @ 1..=primes::NUMBER_MAX) => Ok(number),
        _ => Err(Problem::NoSuchPrime(integer)),
    };
    integers("np", words)?.into_iter().map(number).collect()
}

fn shown(word: &str) -> String {
    let mut shown: String = word.chars().take(SHOWN_LETTERS).collect();
    if shown.len() < word.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(text: &str) -> Result<String, Problem> {
        Command::read(text)?.answer()
    }

    #[test]
    fn what_is_asked_is_answered() {
        for (text, expected) in [
            ("add 2 5", "7"),
            ("  add   2\t-5 ", "-3"),
            ("add 7", "7"),
            ("max 2 5", "5"),
            ("max -2 -5", "-2"),
            ("np 2 12", "3 37"),
            ("np 1", "2"),
        ] {
            assert_eq!(answer(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_sum_may_be_larger_than_its_numbers() {
        let largest = i64::MAX.to_string();
        let text = format!("add {}", vec![largest; 500].join(" "));
        assert_eq!(answer(&text).unwrap(), (i128::from(i64::MAX) * 500).to_string());
        assert_eq!(
            answer(&format!("add {0} {0}", i64::MIN)).unwrap(),
            "-18446744073709551616"
        );
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let many = format!("max{}", " 1".repeat(NUMBERS_MAX + 1));
        let long = format!("add {}", "1".repeat(TEXT_BYTES_MAX));
        for (text, words) in [
            ("", "there is no command \"\""),
            ("ad 2 5", "there is no command \"ad\": add, max, np"),
            ("Add 2 5", "\"Add\""),
            ("add", "add needs at least one number, as in: add 2 5"),
            ("np", "np needs at least one number"),
            ("add 2 five", "\"five\" is not an integer from -9223372036854775808"),
            ("add 2.5", "\"2.5\" is not an integer"),
            ("max 9223372036854775808", "\"9223372036854775808\" is not an integer"),
            ("np 0", "there is no prime number 0: the first is number 1"),
            ("np -3", "there is no prime number -3"),
            ("np 100000001", "the last that is looked for is number 100000000"),
            (many.as_str(), "1001 numbers are too many: a command has at most 1000"),
            (long.as_str(), "the command has 16388 bytes: at most 16384"),
        ] {
            let problem = answer(text).unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn a_wrong_word_is_not_repeated_for_ever() {
        let problem = answer(&"ä".repeat(1_000)).unwrap_err();
        assert_eq!(problem, Problem::Unknown(format!("{}…", "ä".repeat(SHOWN_LETTERS))));
    }

    #[test]
    fn the_help_tells_the_limits_that_hold() {
        for limit in [
            NUMBERS_MAX.to_string(),
            primes::NUMBER_MAX.to_string(),
            i64::MIN.to_string(),
        ] {
            assert!(HELP.contains(&limit), "{limit}");
        }
    }
}
