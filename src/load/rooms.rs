//! How large the rooms are: all alike, evenly between two sizes, or a few large and many small ones.

use std::fmt;
use std::str::FromStr;

use super::schedule::Random;

/// Members of the rooms of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RoomSizes {
    Fixed(u32),
    /// Evenly from the first to the second, drawn by the seed.
    Uniform(u32, u32),
    /// The k-th largest room has `largest / k^exponent` members, at least two.
    Zipf {
        largest: u32,
        exponent: f64,
    },
}

/// Rooms of a Zipf plan have at least so many members: alone nobody hears anything.
const ZIPF_LEAST: u32 = 2;

impl RoomSizes {
    pub fn least(self) -> u32 {
        match self {
            Self::Fixed(size) | Self::Uniform(size, _) => size,
            Self::Zipf { largest, .. } => largest.min(ZIPF_LEAST),
        }
    }

    /// The size of every room.
    pub fn draw(self, rooms: u32, seed: u64) -> Vec<u32> {
        match self {
            Self::Fixed(size) => vec![size; usize::try_from(rooms).expect("a u32 fits a usize here")],
            Self::Uniform(least, most) => {
                let mut random = Random::new(seed ^ 0x7f4a_7c15);
                (0..rooms).map(|_| least + random.below(most - least + 1)).collect()
            }
            Self::Zipf { largest, exponent } => (1..=rooms).map(|rank| zipf(largest, exponent, rank)).collect(),
        }
    }
}

fn zipf(largest: u32, exponent: f64, rank: u32) -> u32 {
    let size = f64::from(largest) / f64::from(rank).powf(exponent);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the largest, not negative")]
    let size = size.round() as u32;
    size.max(largest.min(ZIPF_LEAST))
}

impl FromStr for RoomSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "members, as 100, 10-200 (evenly) or zipf:500:1 (largest, exponent from 0.1 to 4)".to_owned();
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        if let Some(rest) = text.strip_prefix("zipf:") {
            let (largest, exponent) = rest.split_once(':').unwrap_or((rest, "1"));
            let exponent: f64 = exponent.parse().map_err(|_| wrong())?;
            return if (0.1..=4.0).contains(&exponent) { Ok(Self::Zipf { largest: number(largest)?, exponent }) } else { Err(wrong()) };
        }
        match text.split_once('-') {
            None => number(text).map(Self::Fixed),
            Some((least, most)) => {
                let (least, most) = (number(least)?, number(most)?);
                if least <= most && most < u32::MAX { Ok(Self::Uniform(least, most)) } else { Err(wrong()) }
            }
        }
    }
}

impl fmt::Display for RoomSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Uniform(least, most) => write!(f, "{least}-{most}"),
            Self::Zipf { largest, exponent } => write!(f, "zipf:{largest}:{exponent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sizes_follow_their_law_and_the_seed() {
        let draw = |text: &str, rooms, seed| text.parse::<RoomSizes>().unwrap().draw(rooms, seed);
        assert_eq!(draw("5", 3, 1), [5, 5, 5]);
        assert_eq!(draw("zipf:100:1", 5, 1), [100, 50, 33, 25, 20]);
        assert_eq!(draw("zipf:100:2", 10, 1)[8..], [2, 2], "never alone");
        let even = draw("10-19", 5_000, 1);
        assert!(even.iter().all(|size| (10..20).contains(size)));
        assert!((10..20).all(|size| (400..600).contains(&even.iter().filter(|s| **s == size).count())));
        assert_eq!(even, draw("10-19", 5_000, 1));
        assert_ne!(even, draw("10-19", 5_000, 2));
    }

    #[test]
    fn sizes_are_read_and_printed() {
        for text in ["5", "10-19", "zipf:100:1.2"] {
            assert_eq!(text.parse::<RoomSizes>().unwrap().to_string(), text);
        }
        for text in ["", "x", "9-8", "zipf", "zipf:x", "zipf:5:0", "zipf:5:NaN", "-4"] {
            assert!(text.parse::<RoomSizes>().is_err(), "{text}");
        }
    }
}
